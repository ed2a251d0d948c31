"""Predict in chunks, compare the predictions of two models, write a table of them."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stages.columns import Columns
from stages.runtime import files
from stages.runtime.errors import UserError
from stages.tabular import predict_each

Advance = Callable[[int], None]  # is called with how many more predictions have been made

# Columns that DVC adds to the rows of a chart, in place of those that have the same name.
DVC_COLUMNS = ("rev", "field", "filename", "step")
# Columns that tell the chart what to draw.
DRAWN = ("low", "high", "probability")


class Predictions(NamedTuple):
    """What a model predicts for n points, and what each of its networks does, which may be a single one."""

    mean: Tensor  # float32 (n, n_output)
    each: Tensor  # float32 (networks, n, n_output)

    def with_variants(self) -> Tensor:
        """Return the mean, then each network, then the mean without each, float64 (1 + 2 · networks, n, n_output).

        Of a single network, return only what it predicts, (1, n, n_output).
        """
        each, networks = self.each.double(), len(self.each)
        if networks == 1:
            return each
        return torch.cat([self.mean.double()[None], each, (each.sum(dim=0) - each) / (networks - 1)])


def predictions_of(model: nn.Module, x: Tensor) -> Predictions:
    """Return what a model in evaluation mode, and each of its networks, predicts for x, (n, n_feature)."""
    each = predict_each(model, x)
    return Predictions(each.mean(dim=0) if len(each) > 1 else each[0], each)


def predict(model: nn.Module, x: Tensor, rows: int, advance: Advance) -> Iterator[Predictions]:
    """Yield the predictions for x, (n, n_feature), at most `rows` rows at a time.

    Raises UserError if they are not finite.
    """
    for chunk in x.split(rows):
        predictions = predictions_of(model, chunk)
        if not all(values.isfinite().all() for values in predictions):
            cure = "lower train.learning_rate, or look for extreme values in the data"
            raise UserError(f"data/net.pkl: must predict finite values, got nan or inf: {cure}")
        yield predictions
        advance(len(chunk))


def predict_alike(
    model: nn.Module, twin: nn.Module, x: Tensor, rows: int, advance: Advance, differences: list[float]
) -> Iterator[Predictions]:
    """Yield the predictions of a model as `predict` does, once those of its twin are known to be the same.

    The largest absolute difference in each chunk is appended to `differences`.
    Raises UserError if they differ at all, of any network, even if only in the sign of a zero.
    """
    both = zip(predict(model, x, rows, advance), predict(twin, x, rows, advance), strict=True)
    for ours, others in both:
        for values, other in zip(ours, others, strict=True):
            if not torch.equal(values.view(torch.int32), other.view(torch.int32)):  # as bits: -0.0 == 0.0
                raise UserError(
                    "data/net.pkl and data/net_params.pkl predict differently: run `dvc repro --force train`"
                )
        differences.append((ours.mean - others.mean).abs().max().item())
        yield ours


def keep_rows(predictions: Iterable[Predictions], rows: Tensor, kept: Tensor) -> Iterator[Predictions]:
    """Yield predictions, and fill `kept`, (k, n_output), with those of the model for these rows, int64 (k,), ascending.

    It is filled in since many small tensors, made between chunks and kept, would fragment the memory.
    """
    first = 0
    for chunk in predictions:
        n = len(chunk.mean)
        among = (rows >= first) & (rows < first + n)
        kept[among] = chunk.mean[rows[among] - first]
        first += n
        yield chunk


def count_within(
    predictions: Iterable[Predictions], y: Tensor, half_width: Tensor, counts: Tensor
) -> Iterator[Predictions]:
    """Yield predictions, and add to `counts` how many are within the half-width of y; both are (n_output,)."""
    first = 0
    for chunk in predictions:
        n = len(chunk.mean)
        counts += ((chunk.mean.double() - y[first : first + n]).abs() <= half_width).sum(dim=0)
        first += n
        yield chunk


def write_predictions(
    path: str, columns: Columns, x: Tensor, y: Tensor, prediction: Tensor, half_width: Tensor | None = None
) -> None:
    """Write a CSV table with a row for each target of each point. x is (n, n_feature), y and prediction (n, n_output).

    If the only feature is x, as in the lesson, the columns are x; y, the truth; net, the prediction; and output, the
    name of the target. Else they are target, true, predicted, and the features under their names. With the half-width
    of intervals, (n_output,), the prediction is followed by low and high, the ends of its interval.

    If the target is a category, true and predicted are classes, and the latter is followed by its probability.
    """
    is_curve = columns.x_names() == ["x"]
    further = ["probability"] if columns.classes else [] if half_width is None else ["low", "high"]
    first = ["x", "y", "net", *further, "output"] if is_curve else ["target", "true", "predicted", *further]
    features = {} if is_curve else columns.decode(x.numpy())
    if columns.classes:
        written = _of_classes(columns, y, prediction)
    else:
        ends = [] if half_width is None else [prediction - half_width, prediction + half_width]
        numbers = torch.stack([y, prediction, *ends], dim=2).tolist()
        written = [[[*map(_number, of_target)] for of_target in of_point] for of_point in numbers]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*first, *_different(features, taken={*first, *DVC_COLUMNS, *DRAWN})])
    for row, (point, values) in enumerate(zip(x, written, strict=True)):
        cells = [column[row] for column in features.values()]
        for target, of_target in zip(columns.target_names, values, strict=True):
            table.writerow([_number(point.item()), *of_target, target] if is_curve else [target, *of_target, *cells])
    with files.writing(path) as file:
        file.write(text.getvalue().encode())


def _of_classes(columns: Columns, y: Tensor, probabilities: Tensor) -> list[list[list[str]]]:
    """Return, for each point, a list of one: the true class, the most probable one, and its probability, as text."""
    (target,) = columns.targets
    most, best = probabilities.max(dim=1)
    predicted = torch.nn.functional.one_hot(best, y.shape[1])
    classes = zip(target.decode(y.numpy()), target.decode(predicted.numpy()), map(_number, most.tolist()), strict=True)
    return [[[*cells]] for cells in classes]


def _different(names: Iterable[str], taken: set[str]) -> list[str]:
    """Return the names, with `feature ` before those that stand among them already, or are taken."""
    different: list[str] = []
    for name in names:
        while name in taken.union(different):
            name = f"feature {name}"
        different.append(name)
    return different


def _number(value: float) -> str:
    return f"{value:.9g}"
