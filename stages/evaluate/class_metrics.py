"""The metrics of a classification."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 2.0**-23  # probabilities below this count as this in the log loss, which would be infinite at 0
BINS = 10  # of the calibration error: as many equal parts of [0, 1]


@dataclass
class ClassErrors:
    """What the metrics are computed from: what is predicted for n rows, float64.

    A row of a class that no training row has, all 0 in y, is predicted wrongly, with a probability of 0.
    """

    truth: Tensor  # int64 (n,): the class of each row, or the number of classes for a class not seen
    predicted: Tensor  # int64 (n,): the most probable class
    log_losses: Tensor  # -log(probability of the true class)
    briers: Tensor  # Σ over classes (probability - truth)²
    confidence: Tensor  # the probability of the predicted class
    last: Tensor  # the probability of the last class, for the area under the curve of two

    def metrics(self, classes: int) -> dict[str, float]:
        """Return the metrics over all rows; those that do not exist are left out."""
        correct = (self.predicted == self.truth).double()
        present = self.truth.unique()
        recalls = [correct[self.truth == number].mean().item() for number in present]
        metrics = {
            "accuracy": correct.mean().item(),
            "balanced_accuracy": sum(recalls) / len(recalls),
            "log_loss": self.log_losses.mean().item(),
            "brier": self.briers.mean().item(),
            "calibration_error": self.calibration_error(),
        }
        if classes == 2 and present.tolist() == [0, 1]:
            metrics["auc"] = area_under_curve(self.last, self.truth == 1)
        return metrics

    def calibration_error(self) -> float:
        """Return the expected calibration error: |share of correct rows - mean confidence|, averaged over BINS.

        The bins are weighted by their rows. Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
        """
        bins = (self.confidence * BINS).long().clamp(max=BINS - 1)
        difference = (self.predicted == self.truth).double() - self.confidence
        return torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, difference).abs().sum().item() / len(bins)


def class_errors(probabilities: Iterable[Tensor], y: Tensor) -> ClassErrors:
    """Return the errors of probabilities, in chunks of rows, (k, classes), against y, one-hot (n, classes)."""
    parts, row = [], 0
    for some in probabilities:
        truth = y[row : row + len(some)].double()
        probability, seen = some.double(), truth.sum(dim=1)
        of_truth = (probability * truth).sum(dim=1)
        confidence, predicted = probability.max(dim=1)
        parts.append(
            (
                torch.where(seen > 0, truth.argmax(dim=1), y.shape[1]),
                predicted,
                -of_truth.clamp(min=LEAST).log(),
                (probability - truth).square().sum(dim=1) + (1 - seen),
                confidence,
                probability[:, -1].clone(),
            )
        )
        row += len(some)
    return ClassErrors(*map(torch.cat, zip(*parts, strict=True)))


def area_under_curve(scores: Tensor, positive: Tensor) -> float:
    """Return how often a positive row has a higher score than a negative one, ties counting half; both (n,).

    That is the area under the ROC curve (Hanley and McNeil 1982).
    """
    _, places, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks = (last - (counts - 1) / 2)[places]  # the mean rank of each row among equals, from 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return (ranks[positive].sum().item() - positives * (positives + 1) / 2) / (positives * negatives)
