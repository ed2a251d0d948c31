"""Predict in chunks, compare the predictions of two networks, write a table of them."""

import csv
import io
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from stages import network
from stages.columns import Columns
from stages.runtime import files
from stages.runtime.errors import UserError

Advance = Callable[[int], None]  # is called with how many more predictions have been made


def predict(net: nn.Module, x: Tensor, rows: int, advance: Advance | None = None) -> Iterator[Tensor]:
    """Yield the predictions for x, (n, n_feature), at most `rows` rows at a time: (rows, n_output).

    Raises UserError if they are not finite.
    """
    for chunk in x.split(rows):
        prediction = network.predict(net, chunk)
        if not prediction.isfinite().all():
            cure = "lower train.learning_rate, or look for extreme values in the data"
            raise UserError(f"data/net.pkl: must predict finite values, got nan or inf: {cure}")
        yield prediction
        if advance:
            advance(len(chunk))


def largest_difference(net: nn.Module, twin: nn.Module, x: Tensor, rows: int, advance: Advance | None = None) -> float:
    """Return the largest absolute difference between the predictions of both networks for x, (n, n_feature).

    Raises UserError if they differ at all, even if only in the sign of a zero.
    """
    difference = 0.0
    for prediction, other in zip(*(predict(each, x, rows, advance) for each in (net, twin)), strict=True):
        if not torch.equal(prediction.view(torch.int32), other.view(torch.int32)):  # as bits: -0.0 == 0.0
            raise UserError("data/net.pkl and data/net_params.pkl predict differently: run `dvc repro --force train`")
        difference = max(difference, (prediction - other).abs().max().item())
    return difference


def write_predictions(path: str, columns: Columns, x: Tensor, y: Tensor, prediction: Tensor) -> None:
    """Write a CSV table with a row for each output of each point. x is (n, n_feature), the others are (n, n_output).

    The first columns are those of the chart, whatever the dataset: x, the horizontal axis, which is the feature if x
    has one column and else the truth; y, the truth; net, the prediction; and output, the name of the target. The
    features follow under their names.
    """
    first = ["x", "y", "net", "output"]
    others = {} if columns.x_names() == ["x"] else columns.slices()  # in the lesson x is the feature already
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*first, *(f"feature {name}" if name in first else name for name in others)])
    for point, truths, predicted in zip(x, y.tolist(), prediction.tolist(), strict=True):
        features = [_value(point[place].tolist(), columns.categories.get(name)) for name, place in others.items()]
        for truth, net, output in zip(truths, predicted, columns.targets, strict=True):
            over = point.item() if len(point) == 1 else truth
            table.writerow([_number(over), _number(truth), _number(net), output, *features])
    with files.writing(path) as file:
        file.write(text.getvalue().encode())


def _value(x: list[float], categories: list[str] | None) -> str:
    """Return the value of a feature from its columns of x at one point: a number, or which of the categories."""
    return categories[x.index(max(x))] if categories else _number(x[0])


def _number(value: float) -> str:
    return f"{value:.9g}"
