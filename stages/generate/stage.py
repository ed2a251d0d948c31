"""Generate the points to learn from and the points to test on, or take them from a table.

params.yaml, data/raw → data/train.pt, data/test.pt: on the curve, evenly spaced x to train on and random x to test on,
each with noise; or the rows of a table.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from stages import dataset
from stages.dataset import Dataset
from stages.generate.curve import Curve, noise_variance, quadratic
from stages.generate.own_table import OwnTable
from stages.runtime.errors import counted, printable
from stages.runtime.params import StageParams
from stages.runtime.progress import showing


class Params(StageParams):
    """What this stage reads from params.yaml."""

    generate: Annotated[Curve | OwnTable, Field(discriminator="source")]


def training_points(
    points: int, low: float, high: float, noise: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return x, evenly spaced on [low, high], and y, both float32 (points, 1)."""
    x = torch.linspace(low, high, points).unsqueeze(1)  # (points, 1)
    return x, quadratic(x, noise, generator)


def test_points(
    points: int, low: float, high: float, noise: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return x, uniform random on [low, high), and y, both float32 (points, 1)."""
    x = torch.rand(points, 1, generator=generator).mul_(high - low).add_(low)
    return x, quadratic(x, noise, generator)


def points_of_curve(curve: Curve) -> tuple[Dataset, Dataset]:
    """Draw both sets of points."""
    # Two generators, so that neither set changes with the size of the other.
    train_generator = torch.Generator().manual_seed(2 * curve.seed)
    test_generator = torch.Generator().manual_seed(2 * curve.seed + 1)
    shape = (curve.low, curve.high, curve.noise)
    variance = noise_variance(curve.noise)
    train = Dataset(*training_points(curve.points, *shape, train_generator), variance)
    test = Dataset(*test_points(curve.test_points, *shape, test_generator), variance)
    return train, test


def points_of_table(table: OwnTable, advance: Callable[[int], None]) -> tuple[Dataset, Dataset]:
    """Read both sets of points; call `advance` with how many more rows have been read."""
    from stages.generate import table_points  # late: pyarrow takes a moment to import, which the curve does not need

    return table_points.points_of_table(table, advance)


def run(params: Params) -> str:
    """Draw both sets of points, or read them, and write them; return how many they are."""
    source = params.generate
    with showing(None, "row") as advance:
        train, test = points_of_curve(source) if isinstance(source, Curve) else points_of_table(source, advance)
    with showing(len(train.x) + len(test.x), "point") as advance:
        for path, points in (("data/train.pt", train), ("data/test.pt", test)):
            dataset.write(path, points)
            advance(len(points.x))
    numbers = f"{counted(len(train.x), 'training point')}, {counted(len(test.x), 'test point')}"
    decisions = [f"{printable(name)}: {decision}" for name, decision in (train.decisions or {}).items()]
    return "\n".join([*decisions, f"{numbers} -> data/train.pt, data/test.pt"])
