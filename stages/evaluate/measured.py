"""Measure a model, its twin and its variants at the test points, in one pass over them."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stages.dataset import Dataset
from stages.evaluate.class_metrics import ClassErrors, class_errors_of
from stages.evaluate.metrics import Errors, Metrics, errors_of
from stages.evaluate.predictions import Advance, Predictions, count_within, keep_rows, predict_alike


class Measured(NamedTuple):
    """What was measured at the test points."""

    errors: Errors | ClassErrors  # of a model, and of its variants: see Predictions
    in_table: Tensor  # the predictions for the points in predictions.csv, float32 (k, n_output)
    in_errors: Tensor  # and for those in errors.csv
    covered: Tensor  # points that were within the half-width of their prediction, (n_output,)
    difference: float  # the largest between the model and its twin

    def scores(self) -> tuple[Metrics, list[Metrics], list[Metrics]]:
        """Return the metrics of the model and, of several networks, those of each and of the mean without each."""
        overall, *variants = (self.errors.of(model).overall() for model in range(self.errors.models))
        return overall, variants[: len(variants) // 2], variants[len(variants) // 2 :]


def errors_at(points: Dataset, predictions: Iterable[Tensor]) -> Errors | ClassErrors:
    """Return the errors of predictions for points, in chunks of rows, as `errors_of` and `class_errors_of` do."""
    return (class_errors_of if points.names.classes else errors_of)(predictions, points.y)


def measure(
    models: tuple[nn.Module, nn.Module],
    test: Dataset,
    rows: int,
    chosen: tuple[Tensor, Tensor],
    half_width: Tensor | None,
    advance: Advance,
) -> Measured:
    """Predict the test points with a model and its twin, which must agree, so many rows at a time, and measure.

    chosen: the points in predictions.csv and those in errors.csv, int64 (k,).
    """
    differences: list[float] = []
    n_output = test.y.shape[1]
    in_table, in_errors = (torch.empty(len(points), n_output) for points in chosen)
    covered = torch.zeros(n_output, dtype=torch.int64)
    predictions = predict_alike(*models, test.x, rows, advance, differences)
    for points, kept in zip(chosen, (in_table, in_errors), strict=True):
        predictions = keep_rows(predictions, points, kept)
    if half_width is not None:
        predictions = count_within(predictions, test.y, half_width, covered)
    errors = errors_at(test, map(Predictions.with_variants, predictions))
    return Measured(errors, in_table, in_errors, covered, max(differences))
