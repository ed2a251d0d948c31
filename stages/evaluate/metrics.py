"""The metrics of a regression, for each target and overall."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK_VALUES = 2**18  # of y, averaged at a time


# How far predictions are from the truth, by name, over all rows of one target or of all targets. Of amounts: mse, rmse
# and mae, in units of y, and r2, 1 - Σ(y - prediction)² / Σ(y - mean y)², None if all y are equal.
Metrics = dict[str, float | None]


class Errors(NamedTuple):
    """What the metrics of a model are computed from: sums over n rows, float64 (n_output,).

    Of several models, for which `of` picks one, squares and absolutes are (models, n_output).
    """

    n: int
    squares: Tensor  # Σ(y - prediction)²
    absolutes: Tensor  # Σ|y - prediction|
    deviations: Tensor  # Σ(y - mean y)²

    @property
    def models(self) -> int:
        """How many models there are, if there are several."""
        return len(self.squares)

    def of(self, model: int) -> "Errors":
        """Return the errors of one of several models."""
        return self._replace(squares=self.squares[model], absolutes=self.absolutes[model])

    def overall(self) -> Metrics:
        """Return the metrics over all rows and targets."""
        return self._metrics(slice(None))

    def by_target(self, names: list[str]) -> dict[str, Metrics]:
        """Return the metrics of each target."""
        return {name: self._metrics(slice(index, index + 1)) for index, name in enumerate(names)}

    def _metrics(self, targets: slice) -> Metrics:
        values = self.n * len(self.squares[targets])
        mse, mae, variance = (sums[targets].sum().item() / values for sums in self[1:])
        return {"mse": mse, "rmse": math.sqrt(mse), "mae": mae, "r2": 1 - mse / variance if variance else None}


def errors_of(predictions: Iterable[Tensor], y: Tensor) -> Errors:
    """Return the errors of predictions against the truth y, (n, n_output), computed in float64.

    The predictions come in chunks of rows, (k, n_output) or, of several models, (models, k, n_output), of which one is
    in memory at a time.
    """
    rows = max(1, CHUNK_VALUES // y.shape[1])
    mean_y = sum(chunk.double().sum(dim=0) for chunk in y.split(rows)) / len(y)  # (n_output,)
    squares, absolutes, deviations = torch.zeros(3, y.shape[1], dtype=torch.float64)
    row = 0
    for prediction in predictions:
        truth = y[row : row + prediction.shape[-2]].double()
        assert prediction.shape[-2:] == truth.shape  # else they would be broadcast
        error = prediction.double() - truth
        squares = squares + error.square().sum(dim=-2)
        absolutes = absolutes + error.abs().sum(dim=-2)
        deviations += (truth - mean_y).square().sum(dim=0)
        row += len(truth)
    return Errors(row, squares, absolutes, deviations)
