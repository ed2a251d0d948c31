"""The metrics of a classification."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from stages.evaluate.metrics import Metrics

LEAST = 2.0**-23  # probabilities below this count as this in the log loss, which would be infinite at 0
SUMS = ("correct", "predicted", "log_loss", "brier", "surplus")  # of each model
BINS = 10  # of the calibration error: as many equal parts of [0, 1]


class Losses(NamedTuple):
    """What is predicted for n rows, and how far it is from the truth, float64 (…, n) unless said otherwise.

    A row of a class that no training row has, all 0 in y, is predicted wrongly, with a probability of 0.
    """

    true: Tensor  # int64 (n,): the class of each row, or the number of classes for a class not seen
    predicted: Tensor  # int64 (…, n): the most probable class
    confidence: Tensor  # the probability of that class
    of_true: Tensor  # the probability of the true class
    log_loss: Tensor  # -log(of_true)
    brier: Tensor  # Σ over classes (probability - truth)²


def losses_of(probabilities: Tensor, y: Tensor) -> Losses:
    """Return the losses of probabilities, (…, n, classes), against y, one-hot (n, classes)."""
    probability, truth = probabilities.double(), y.double()
    seen = truth.sum(dim=1)
    of_true = (probability * truth).sum(dim=-1)
    confidence, predicted = probability.max(dim=-1)
    true = torch.where(seen > 0, truth.argmax(dim=1), y.shape[1])
    brier = (probability - truth).square().sum(dim=-1) + (1 - seen)
    return Losses(true, predicted, confidence, of_true, -of_true.clamp(min=LEAST).log(), brier)


class ClassErrors(NamedTuple):
    """What the metrics are computed from: sums over n rows, float64, and scores if there are two classes.

    Of several models, for which `of` picks one, all but `rows` and `positive` begin with (models, …).
    """

    rows: Tensor  # (classes + 1,): those of each class, and those of classes not seen
    correct: Tensor  # (classes + 1,): those of them that are predicted correctly
    predicted: Tensor  # (classes,): how often each class is predicted
    log_loss: Tensor  # (): Σ log losses
    brier: Tensor  # (): Σ Brier scores
    surplus: Tensor  # (BINS,): Σ of correct (0 or 1) - confidence, by confidence
    scores: Tensor  # float32 (n,): the probabilities of the second of two classes; (0,) if there are more
    positive: Tensor  # bool (n,): which rows are of that class

    @property
    def models(self) -> int:
        """How many models there are, if there are several."""
        return len(self.correct)

    def of(self, model: int) -> "ClassErrors":
        """Return the errors of one of several models."""
        of_model = {name: values[model] for name, values in self._asdict().items() if name in SUMS}
        scores = self.scores[model] if model < len(self.scores) else torch.empty(0)
        return self._replace(**of_model, scores=scores)

    def overall(self) -> Metrics:
        """Return the metrics over all rows; those that do not exist are left out."""
        n, present = self.rows.sum(), self.rows > 0
        metrics: Metrics = {
            "accuracy": (self.correct.sum() / n).item(),
            "balanced_accuracy": (self.correct[present] / self.rows[present]).mean().item(),
            "log_loss": (self.log_loss / n).item(),
            "brier": (self.brier / n).item(),
            "calibration_error": self._calibration_error(),
        }
        if len(self.scores) and present.tolist() == [True, True, False]:
            metrics["auc"] = area_under_curve(self.scores, self.positive)
        return metrics

    def by_target(self, names: list[str]) -> dict[str, Metrics]:
        """Return the metrics of the only target."""
        (name,) = names
        return {name: self.overall()}

    def _calibration_error(self) -> float:
        """Return the expected calibration error: |share of correct rows - mean confidence|, averaged over BINS.

        The bins are weighted by their rows. Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
        """
        return (self.surplus.abs().sum() / self.rows.sum()).item()


def class_errors_of(predictions: Iterable[Tensor], y: Tensor) -> ClassErrors:
    """Return the errors of probabilities against y, one-hot (n, classes), computed in float64.

    The probabilities come in chunks of rows, as those of `errors_of` do. The area under the curve needs the scores of
    all rows; of a mean of networks, those of the mean without each are left out.
    """
    n, classes = y.shape
    sums: dict[str, Tensor] = {}
    scores, row = torch.empty(0), 0
    for prediction in predictions:
        chunk = slice(row, row + prediction.shape[-2])
        assert prediction.shape[-2:] == y[chunk].shape
        part = _sums(losses_of(prediction, y[chunk]), classes)
        if not sums:  # in the first chunk
            kept = prediction.shape[:-2] and ((len(prediction) + 1) // 2,)
            scores = torch.empty(*kept, n if classes == 2 else 0)
        if classes == 2:
            scores[..., chunk] = prediction[: scores.shape[0], :, 1] if scores.dim() > 1 else prediction[:, 1]
        sums = {name: sums[name] + own if sums else own for name, own in part.items()}
        row = chunk.stop
    positive = y[:, 1] > 0 if classes == 2 else torch.empty(0, dtype=torch.bool)
    return ClassErrors(**sums, scores=scores, positive=positive)


def _sums(losses: Losses, classes: int) -> dict[str, Tensor]:
    """Return the sums over rows that ClassErrors has, by their names."""
    true = losses.true.expand_as(losses.predicted)
    correct = (losses.predicted == losses.true).double()
    bins = (losses.confidence * BINS).long().clamp(max=BINS - 1)
    return {
        "rows": _by_group(losses.true, torch.ones(len(losses.true), dtype=torch.float64), classes + 1),
        "correct": _by_group(true, correct, classes + 1),
        "predicted": _by_group(losses.predicted, torch.ones_like(correct), classes),
        "log_loss": losses.log_loss.sum(dim=-1),
        "brier": losses.brier.sum(dim=-1),
        "surplus": _by_group(bins, correct - losses.confidence, BINS),
    }


def _by_group(groups: Tensor, values: Tensor, count: int) -> Tensor:
    """Return the sums of values, float64 (…, n), over the rows of each group, int64 (…, n): (…, count)."""
    return torch.zeros(*values.shape[:-1], count, dtype=torch.float64).scatter_add_(-1, groups, values)


def area_under_curve(scores: Tensor, positive: Tensor) -> float:
    """Return how often a positive row has a higher score than a negative one, ties counting half; both (n,).

    That is the area under the ROC curve (Hanley and McNeil 1982).
    """
    _, places, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts - 1) / 2)[places]  # the mean rank of each row among equals, from 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return (ranks[positive].sum().item() - positives * (positives + 1) / 2) / (positives * negatives)
