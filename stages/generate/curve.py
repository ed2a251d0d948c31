"""The curve that the lesson learns: y = x² + noise · U[0, 1)."""

from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from stages.runtime.params import Exact, PointCount, Section

Coordinate = Annotated[float, Field(ge=-1e18, le=1e18), Exact]  # x² stays finite in float32


class Curve(Section):
    """The section `generate` of params.yaml, for the curve of the lesson."""

    source: Literal["curve"]
    points: PointCount
    test_points: PointCount
    low: Coordinate
    high: Coordinate
    noise: Annotated[float, Field(ge=0, le=1e36), Exact]
    seed: Annotated[int, Field(ge=0, lt=2**31)]

    @field_validator("high")
    @classmethod
    def _above_low(cls, high: float, info: ValidationInfo) -> float:
        if "low" in info.data and high <= info.data["low"]:
            raise ValueError(f"must be greater than generate.low ({info.data['low']})")
        return high


def quadratic(x: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Return y = x² + noise · U[0, 1), float32 (n, 1), for x, float32 (n, 1)."""
    return torch.rand(x.shape, generator=generator).mul_(noise).addcmul_(x, x)


def noise_variance(noise: float) -> float:
    """Return the variance of noise · U[0, 1), noise²/12, in units of y²."""
    return noise**2 / 12
