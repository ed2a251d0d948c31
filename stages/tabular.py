"""A network that takes and returns the columns of a table in their original units, and stores their names."""

from typing import Any

import torch
from torch import Tensor, nn

from stages.columns import Columns
from stages.dataset import Dataset

CHUNK_ROWS = 1 << 16  # converted to float64 at a time


class Stored(Columns):
    """What a Tabular stores as JSON: its columns and, if there are any, the params that its tensors do not show."""

    network: dict[str, Any] | None = None


class Tabular(nn.Module):
    """A network for standardized columns, wrapped so that it takes and returns columns in their original units.

    Standardized columns have mean 0 and standard deviation 1 in the training rows. Before `fit` is called, both units
    are the same.
    """

    x_mean: Tensor  # float64 (n_feature,), as is x_deviation
    x_deviation: Tensor
    y_mean: Tensor  # float64 (n_output,), as is y_deviation
    y_deviation: Tensor

    def __init__(self, net: nn.Module, columns: Columns, not_in_tensors: dict[str, Any] | None = None) -> None:
        super().__init__()
        stored = Stored(**columns.model_dump(), network=not_in_tensors or None)
        self.columns = stored.model_dump_json(exclude_none=True)
        n_feature, n_output = len(columns.x_names()), len(columns.targets)
        self.register_buffer("x_mean", torch.zeros(n_feature, dtype=torch.float64))
        self.register_buffer("x_deviation", torch.ones(n_feature, dtype=torch.float64))
        self.register_buffer("y_mean", torch.zeros(n_output, dtype=torch.float64))
        self.register_buffer("y_deviation", torch.ones(n_output, dtype=torch.float64))
        self.net = net

    @property
    def names(self) -> Columns:
        """The names of the columns of x and y."""
        return Columns(**Stored.model_validate_json(self.columns).model_dump(exclude={"network"}))

    def forward(self, x: Tensor) -> Tensor:
        """Return the predictions, (n, n_output), for x, (n, n_feature), both in their original units."""
        return self.unstandardize(self.net(standardized(x, self.x_mean, self.x_deviation)))

    def unstandardize(self, y: Tensor) -> Tensor:
        """Return standardized y, (…, n_output), in the original units."""
        return (y.double() * self.y_deviation + self.y_mean).to(y.dtype)

    def fit(self, x: Tensor, y: Tensor) -> None:
        """Store the means and standard deviations of x, (n, n_feature), and y, (n, n_output)."""
        self.x_mean, self.x_deviation = mean_and_deviation(x)
        self.y_mean, self.y_deviation = mean_and_deviation(y)

    def standardize_(self, x: Tensor, y: Tensor) -> None:
        """Standardize x, (n, n_feature), and y, (n, n_output), in place."""
        for values, mean, deviation in ((x, self.x_mean, self.x_deviation), (y, self.y_mean, self.y_deviation)):
            for chunk in values.split(CHUNK_ROWS):
                chunk.copy_(standardized(chunk, mean, deviation))

    def get_extra_state(self) -> str:
        """Return the JSON text, which a state dict carries as `_extra_state`."""
        return self.columns

    def set_extra_state(self, state: str) -> None:
        """Restore the JSON text from a state dict."""
        self.columns = state


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each column of values, (n, k), both float64 (k,).

    The deviation is that of all rows, with n in the denominator, and 1 where a column is constant.
    """
    # Less the first row, a constant column is exactly 0, and a large offset costs no precision.
    first = values[0].double()
    shift = sum(((chunk.double() - first).sum(dim=0) for chunk in values.split(CHUNK_ROWS)), first * 0) / len(values)
    mean = first + shift
    squares = ((chunk.double() - first - shift).square().sum(dim=0) for chunk in values.split(CHUNK_ROWS))
    deviation = (sum(squares, first * 0) / len(values)).sqrt()
    return mean, torch.where(deviation > 0, deviation, 1.0)


def standardized(values: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return (values - mean) / deviation for values, (n, k), computed in float64, in the dtype of the values."""
    return ((values.double() - mean) / deviation).to(values.dtype)


def model_columns(points: Dataset, standardize: bool) -> Columns | None:
    """Return the columns that a model of these points stores, as a Tabular; None if it is the network alone."""
    return points.names if standardize or points.columns else None
