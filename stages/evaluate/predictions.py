"""Predict in chunks, compare the predictions of two networks, write a table of them."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from stages import network
from stages.columns import Columns
from stages.runtime import files
from stages.runtime.errors import UserError

Advance = Callable[[int], None]  # is called with how many more predictions have been made

# Columns that DVC adds to the rows of a chart, in place of those that have the same name.
DVC_COLUMNS = ("rev", "field", "filename", "step")


def predict(net: nn.Module, x: Tensor, rows: int, advance: Advance) -> Iterator[Tensor]:
    """Yield the predictions for x, (n, n_feature), at most `rows` rows at a time: (rows, n_output).

    Raises UserError if they are not finite.
    """
    for chunk in x.split(rows):
        prediction = network.predict(net, chunk)
        if not prediction.isfinite().all():
            cure = "lower train.learning_rate, or look for extreme values in the data"
            raise UserError(f"data/net.pkl: must predict finite values, got nan or inf: {cure}")
        yield prediction
        advance(len(chunk))


def predict_alike(
    net: nn.Module, twin: nn.Module, x: Tensor, rows: int, advance: Advance, differences: list[float]
) -> Iterator[Tensor]:
    """Yield the predictions of `net` as `predict` does, once those of the twin are known to be the same.

    The largest absolute difference in each chunk is appended to `differences`.
    Raises UserError if they differ at all, even if only in the sign of a zero.
    """
    both = zip(predict(net, x, rows, advance), predict(twin, x, rows, advance), strict=True)
    for prediction, other in both:
        if not torch.equal(prediction.view(torch.int32), other.view(torch.int32)):  # as bits: -0.0 == 0.0
            raise UserError("data/net.pkl and data/net_params.pkl predict differently: run `dvc repro --force train`")
        differences.append((prediction - other).abs().max().item())
        yield prediction


def keep_rows(predictions: Iterable[Tensor], rows: Tensor, kept: list[Tensor]) -> Iterator[Tensor]:
    """Yield predictions, which come in chunks, and append to `kept` those of these rows, int64 (k,), ascending."""
    first = 0
    for chunk in predictions:
        kept.append(chunk[rows[(rows >= first) & (rows < first + len(chunk))] - first])
        first += len(chunk)
        yield chunk


def write_predictions(path: str, columns: Columns, x: Tensor, y: Tensor, prediction: Tensor) -> None:
    """Write a CSV table with a row for each target of each point. x is (n, n_feature), the others are (n, n_output).

    If the only feature is x, as in the lesson, the columns are x; y, the truth; net, the prediction; and output, the
    name of the target. Else they are target, true, predicted, and the features under their names.
    """
    is_curve = columns.x_names() == ["x"]
    first = ["x", "y", "net", "output"] if is_curve else ["target", "true", "predicted"]
    features = {} if is_curve else columns.slices()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_different([*first, *features], taken={*DVC_COLUMNS}))
    for point, truths, predicted in zip(x, y.tolist(), prediction.tolist(), strict=True):
        values = [_value(point[place].tolist(), columns.categories.get(name)) for name, place in features.items()]
        for target, true, net in zip(columns.targets, truths, predicted, strict=True):
            numbers = [_number(true), _number(net)]
            table.writerow([_number(point.item()), *numbers, target] if is_curve else [target, *numbers, *values])
    with files.writing(path) as file:
        file.write(text.getvalue().encode())


def _different(names: list[str], taken: set[str]) -> list[str]:
    """Return the names, with `feature ` before those that stand among them already, or are taken."""
    different: list[str] = []
    for name in names:
        while name in taken.union(different):
            name = f"feature {name}"
        different.append(name)
    return different


def _value(x: list[float], categories: list[str] | None) -> str:
    """Return the value of a feature from its columns of x at one point: a number, or which of the categories."""
    return categories[x.index(max(x))] if categories else _number(x[0])


def _number(value: float) -> str:
    return f"{value:.9g}"
