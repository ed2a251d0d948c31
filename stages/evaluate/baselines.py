"""Models without a network, which a network should beat: the mean, and least squares; see also logistic.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.tabular import mean_and_deviation

CHUNK_VALUES = 2**18  # of x and y, computed with at a time
COLLINEAR = 1e-9  # singular values below this share of the largest count as 0: columns are linearly dependent
Model = Callable[[Tensor], Tensor]  # x, float64 (n, n_feature), to predictions, float64 (n, n_output)


def mean_of(y: Tensor) -> Model:
    """Return the model that predicts the mean of each column of y, (n, n_output), for any x."""
    mean, _ = mean_and_deviation(y)
    return lambda x: mean.expand(len(x), -1)


@dataclass(frozen=True)
class Linear:
    """A linear model with an intercept, of standardized columns."""

    x_mean: Tensor  # float64 (n_feature,), as is x_deviation
    x_deviation: Tensor
    y_mean: Tensor  # float64 (n_output,), as is y_deviation
    y_deviation: Tensor
    weights: Tensor  # float64 (n_feature, n_output)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the predictions, float64 (n, n_output), for x, (n, n_feature)."""
        return (x.double() - self.x_mean) / self.x_deviation @ self.weights * self.y_deviation + self.y_mean


def least_squares(x: Tensor, y: Tensor) -> Linear:
    """Return the linear model with an intercept that has the lowest squared error on x, (n, n_feature), and y.

    It is computed in float64 by QR decompositions of a chunk of rows at a time. If columns of x are linearly dependent,
    as those of a category are, it is the solution with the smallest weights for standardized columns.
    """
    (x_mean, x_deviation), (y_mean, y_deviation) = mean_and_deviation(x), mean_and_deviation(y)
    n_feature = x.shape[1]
    rows = max(1, CHUNK_VALUES // (n_feature + y.shape[1]))
    triangle = torch.zeros(0, n_feature + y.shape[1], dtype=torch.float64)
    for some_x, some_y in zip(x.split(rows), y.split(rows), strict=True):
        standardized = (some_x.double() - x_mean) / x_deviation, (some_y.double() - y_mean) / y_deviation
        triangle = torch.linalg.qr(torch.cat([triangle, torch.cat(standardized, dim=1)]), mode="r").R
    weights = torch.linalg.lstsq(
        triangle[:, :n_feature], triangle[:, n_feature:], rcond=COLLINEAR, driver="gelsd"
    ).solution  # (n_feature, n_output)
    return Linear(x_mean, x_deviation, y_mean, y_deviation, weights)


def predictions(model: Model, x: Tensor) -> Iterator[Tensor]:
    """Yield the predictions of a model for x, (n, n_feature), in chunks of rows."""
    yield from map(model, x.split(max(1, CHUNK_VALUES // x.shape[1])))
