"""Batches of points that one network learns from."""

from torch import Tensor

from stages.dataset import Dataset
from stages.train.batches import Batches, Points
from stages.train.ranks import Ranks
from stages.train.validation import folds_of, hold_back


def batched(x: Tensor, y: Tensor, size: int | None, micro_size: int, ranks: Ranks, seed: int) -> Batches:
    """Return the batches of all points, x, (n, n_feature), and y, (n, n_output)."""
    return Batches(Points(x, y, len(x)), size, micro_size, ranks, [seed])


def split(points: Dataset, fraction: float, seed: int) -> tuple[Points, Points | None]:
    """Return the points to train on, and those held back if the fraction is above 0."""
    return hold_back(points.x, points.y, folds_of(len(points.x), fraction, 1, seed))
