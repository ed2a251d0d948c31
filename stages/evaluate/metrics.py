"""The metrics of a regression."""

import math
from collections.abc import Iterable
from typing import TypedDict

from torch import Tensor

CHUNK_VALUES = 1 << 18  # of y that are averaged at a time


class Metrics(TypedDict):
    """How far predictions are from the truth, over all rows and columns."""

    mse: float  # in units of y²
    rmse: float  # in units of y
    mae: float  # in units of y
    r2: float | None  # 1 - Σ(y - prediction)² / Σ(y - mean y)²; None if all y are equal


def regression_metrics(predictions: Iterable[Tensor], y: Tensor) -> Metrics:
    """Return the metrics of predictions against the truth y, (n, n_output), computed in float64.

    The predictions come in chunks of rows, (k, n_output), of which one is in memory at a time.
    """
    rows = max(1, CHUNK_VALUES // y.shape[1])
    mean_y = sum(chunk.double().sum(dim=0) for chunk in y.split(rows)) / len(y)  # (n_output,)
    squares = absolutes = deviations = 0.0
    row = 0
    for prediction in predictions:
        truth = y[row : row + len(prediction)].double()
        assert prediction.shape == truth.shape  # else they would be broadcast
        error = prediction.double() - truth
        squares += error.square().sum().item()
        absolutes += error.abs().sum().item()
        deviations += (truth - mean_y).square().sum().item()
        row += len(prediction)
    mse, variance = squares / y.numel(), deviations / y.numel()
    return {
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": absolutes / y.numel(),
        "r2": 1 - mse / variance if variance else None,
    }
