"""Logistic regression, which a network that predicts classes should beat."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from stages.runtime.eager import without_compiler
from stages.tabular import mean_and_deviation

CHUNK_VALUES = 2**18  # of x and y, computed with at a time
PENALTY = 1.0  # times half the sum of the squared weights, beside the sum of the rows' losses
MOST_ITERATIONS = 1000
TOLERANCE = 1e-8  # of the gradient of the mean loss


@dataclass(frozen=True)
class Logistic:
    """A linear model of the logits of classes, with an intercept, of standardized columns."""

    x_mean: Tensor  # float64 (n_feature,), as is x_deviation
    x_deviation: Tensor
    weights: Tensor  # float64 (n_feature + 1, classes); the last row is the intercepts

    def __call__(self, x: Tensor) -> Tensor:
        """Return the probability of each class, float64 (n, classes), for x, (n, n_feature)."""
        return _logits(self.weights, (x.double() - self.x_mean) / self.x_deviation).softmax(dim=1)


def logistic_regression(x: Tensor, y: Tensor) -> Logistic:
    """Return the model with the lowest penalised cross-entropy on x, (n, n_feature), and y, one-hot (n, classes).

    It is computed in float64 by L-BFGS, a chunk of rows at a time. The penalty, that of ridge regression, gives it
    finite weights where a plane separates the classes. It is that of scikit-learn's C = 1; of two classes, which have
    weights each here, that of C = 2.
    """
    without_compiler()
    mean, deviation = mean_and_deviation(x)
    weights = torch.zeros(x.shape[1] + 1, y.shape[1], dtype=torch.float64, requires_grad=True)
    rows = max(1, CHUNK_VALUES // (x.shape[1] + y.shape[1]))
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=MOST_ITERATIONS, tolerance_grad=TOLERANCE, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        optimizer.zero_grad()
        penalty = PENALTY / 2 / len(x) * weights[:-1].square().sum()
        penalty.backward()
        total = penalty.item()
        for some_x, some_y in zip(x.split(rows), y.split(rows), strict=True):
            logits = _logits(weights, (some_x.double() - mean) / deviation)
            part = cross_entropy(logits, some_y.double(), reduction="sum") / len(x)
            part.backward()
            total += part.item()
        return total

    optimizer.step(loss)
    return Logistic(mean, deviation, weights.detach())


def _logits(weights: Tensor, standardized: Tensor) -> Tensor:
    return standardized @ weights[:-1] + weights[-1]
