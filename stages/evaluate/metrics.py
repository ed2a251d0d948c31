"""The metrics of a regression."""

import math
from typing import TypedDict

from torch import Tensor


class Metrics(TypedDict):
    """How far predictions are from the truth, over all rows and columns."""

    mse: float  # in units of y²
    rmse: float  # in units of y
    mae: float  # in units of y
    r2: float | None  # 1 - Σ(y - prediction)² / Σ(y - mean y)²; None where all y are the same


def regression_metrics(prediction: Tensor, y: Tensor) -> Metrics:
    """Return the metrics of predictions, (n, n_output), against the truth y, (n, n_output), computed in float64."""
    y = y.double()
    error = prediction.double() - y
    mse, variance = error.square().mean().item(), (y - y.mean(dim=0)).square().mean().item()
    return {
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": error.abs().mean().item(),
        "r2": 1 - mse / variance if variance else None,
    }
