"""A network that takes and returns the columns of a table in their original units, and stores their names."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.columns import Columns, Notation, Number, Reading
from stages.dataset import Dataset
from stages.ensemble import NO_ERRORS, Ensemble, networks_of, width
from stages.network import predict
from stages.runtime.chunks import rows_at_a_time

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 1 << 16  # converted to float64 at a time


class Stored(Columns):
    """What a Tabular stores as JSON: its columns and, if there are any, the params that its tensors do not show."""

    network: dict[str, Any] | None = None


class Tabular(nn.Module):
    """A network for standardized columns, wrapped so that it takes and returns columns in their original units.

    It returns amounts or, if the target is a category, the probability of each class.

    Standardized columns have mean 0 and standard deviation 1 in the training rows. Before `fit` is called, both units
    are the same. Numbers far outside their training range are replaced by the limit of what counts as far.
    """

    x_low: Tensor  # float32 (n_feature,), as is x_high: the least and the greatest x that the network gets
    x_high: Tensor
    x_mean: Tensor  # float64 (n_feature,), as is x_deviation
    x_deviation: Tensor
    y_mean: Tensor  # float64 (n_output,), as is y_deviation
    y_deviation: Tensor

    def __init__(self, net: nn.Module, columns: Columns, not_in_tensors: dict[str, Any] | None = None) -> None:
        super().__init__()
        stored = Stored(**columns.model_dump(), network=not_in_tensors or None)
        self.columns = stored.model_dump_json(exclude_none=True)
        self.predicts_classes = bool(columns.classes)
        n_feature, n_output = len(columns.x_names()), len(columns.y_names())
        low, high = x_limits(columns)
        self.register_buffer("x_low", low)
        self.register_buffer("x_high", high)
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
        return self.each(x).mean(dim=0) if isinstance(self.net, Ensemble) else self._predicted(self.net, x)

    def each(self, x: Tensor) -> Tensor:
        """Return each network's predictions, (networks, n, n_output), for x in original units, as in `Stack`."""
        assert isinstance(self.net, Ensemble)
        return self._predicted(self.net.networks, x)

    def predict(self, rows: Any, interval: float | None = None) -> "pa.Table":
        """Return the predictions for rows of raw cells: an Arrow or pandas table, or a list of dicts by column name.

        The result has a column for each target, float32, null where a row cannot be predicted. A missing cell is None.
        With an interval, such as 0.9, the two columns after each target are the ends of its interval at that level. If
        the target is a category, its column holds the most probable class, and those after it the probability of each.
        Raises ValueError if a row lacks a feature, or as `columns_of` does.
        """
        import pyarrow as pa  # late, as in the kinds of columns

        from stages.columns.cells import arrays_of

        columns, arrays = self.names, arrays_of(rows)
        if lacking := [name for name in columns.feature_names if name not in arrays]:
            raise ValueError(f"rows must have {', '.join(lacking)}, None where a value is missing")
        wanted = {name: arrays[name] for name in columns.feature_names}
        y = self.predict_cells(columns.read(wanted, Notation(missing=columns.missing)))
        named = self.columns_of(y, interval)
        return pa.table([pa.array(values, from_pandas=True) for values in named.values()], [*named])

    def columns_of(self, y: np.ndarray, level: float | None = None) -> dict[str, np.ndarray]:
        """Return predictions, float32 (n, n_output), as columns of a table, by name, as `predict` describes them.

        Raises ValueError if intervals are asked for and the model knows no held-out errors, or too few for this level,
        or if it predicts classes; and if two columns would have the same name.
        """
        columns, names = self.names, self.names.target_names
        if columns.classes and level is not None:
            raise ValueError("is for amounts; the probabilities of classes say how sure a prediction is")
        named: list[tuple[str, np.ndarray]] = []
        if columns.classes:
            classes = np.array(columns.classes, object)[y.argmax(axis=1)]
            classes[np.isnan(y[:, 0])] = None
            named = [(names[0], classes), *zip(columns.y_names(), y.T, strict=True)]
        elif level is None:
            named = [*zip(names, y.T, strict=True)]
        elif isinstance(self.net, Ensemble):
            for name, values, half_width in zip(names, y.T, self.net.half_width(level).numpy(), strict=True):
                named += [(name, values), (f"{name} low", values - half_width), (f"{name} high", values + half_width)]
        else:
            raise ValueError(NO_ERRORS)
        if len(dict(named)) < len(named):
            raise ValueError(f"would give two columns the same name: {', '.join(name for name, _ in named)}")
        return dict(named)

    def predict_cells(self, readings: Mapping[str, Reading]) -> np.ndarray:
        """Return the predictions, float32 (n, n_output), for n rows of the features, by name; nan where there is none.

        There is none for a row with a number that float32 cannot hold, or if it is not finite itself.
        """
        x = torch.from_numpy(self.names.encode({name: reading.cells for name, reading in readings.items()}))
        y = torch.empty(len(x), len(self.y_mean))  # filled in: small tensors that are kept would fragment the memory
        rows = rows_at_a_time(width(self))
        for some_x, some_y in zip(x.split(rows), y.split(rows), strict=True):
            some_y.copy_(predict(self, some_x))
        y[torch.from_numpy(np.any([reading.unusable for reading in readings.values()], axis=0))] = math.nan
        return torch.where(y.isfinite().all(dim=1, keepdim=True), y, math.nan).numpy()

    def _predicted(self, net: nn.Module, x: Tensor) -> Tensor:
        x = x.clamp(self.x_low, self.x_high)
        return self.in_original_units(net(standardized(x, self.x_mean, self.x_deviation)))

    def in_original_units(self, y: Tensor) -> Tensor:
        """Return what the network predicts, (…, n_output), as amounts in their original units, or as probabilities."""
        if self.predicts_classes:
            return y.softmax(dim=-1)
        return (y.double() * self.y_deviation + self.y_mean).to(y.dtype)

    def fit(self, x: Tensor, y: Tensor) -> None:
        """Store the means and standard deviations of x, (n, n_feature), and of amounts y, (n, n_output)."""
        self.x_mean, self.x_deviation = mean_and_deviation(x)
        if not self.predicts_classes:
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


def x_limits(columns: Columns) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest value of each column of x, both finite and float32 (n_feature,).

    Only numbers have limits of their own: dates go on, and levels are 0 or 1.
    """
    largest = torch.finfo(torch.float32).max
    low, high = (torch.full((len(columns.x_names()),), limit) for limit in (-largest, largest))
    for feature, place in zip(columns.features, columns.slices().values(), strict=True):
        if isinstance(feature, Number):
            limits = (min(max(limit, -largest), largest) for limit in feature.far_limits())
            low[place.start], high[place.start] = limits
    return low, high


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
    """Return (values - mean) / deviation for values, (…, k), computed in float64, in the dtype of the values."""
    return ((values.double() - mean) / deviation).to(values.dtype)


def ensemble_of(model: nn.Module) -> Ensemble | None:
    """Return the networks in a model that has several, with what is known of the rows that they held back."""
    net = model.net if isinstance(model, Tabular) else model
    return net if isinstance(net, Ensemble) else None


@torch.no_grad()
def predict_each(model: nn.Module, x: Tensor) -> Tensor:
    """Return what each network of a model in evaluation mode predicts, (networks, n, n_output), for x, (n, n_feature).

    If it has several, x may also be (networks, n, n_feature).
    """
    if (stack := networks_of(model)) is None:
        return model(x)[None]
    return model.each(x) if isinstance(model, Tabular) else stack(x)


def model_columns(points: Dataset, standardize: bool) -> Columns | None:
    """Return the columns that a model of these points stores, as a Tabular; None if it is the network alone."""
    return points.names if standardize or points.columns else None
