"""Generate the points to learn from and the points to test on.

params.yaml → data/train.pt, data/test.pt: evenly spaced x to train on, random x to test on, each with noise.
"""

import torch
from torch import Tensor

from stages import dataset
from stages.dataset import Dataset
from stages.generate.curve import Curve, noise_variance, quadratic
from stages.params import StageParams


class Params(StageParams):
    """What this stage reads from params.yaml."""

    generate: Curve


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


def run(params: Params) -> None:
    """Draw both sets of points and write them."""
    curve = params.generate
    # Two generators, so that neither set changes with the size of the other.
    train_generator = torch.Generator().manual_seed(2 * curve.seed)
    test_generator = torch.Generator().manual_seed(2 * curve.seed + 1)
    shape = (curve.low, curve.high, curve.noise)
    train_x, train_y = training_points(curve.points, *shape, train_generator)
    test_x, test_y = test_points(curve.test_points, *shape, test_generator)
    variance = noise_variance(curve.noise)
    dataset.write("data/train.pt", Dataset(train_x, train_y, variance))
    dataset.write("data/test.pt", Dataset(test_x, test_y, variance))
