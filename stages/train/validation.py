"""Hold points back from training, and measure after each epoch how well the network predicts them."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from stages import network
from stages.dataset import Dataset
from stages.runtime.errors import UserError, counted
from stages.train.batches import Batch, mixed
from stages.train.loop import Everywhere, LossFunction

SPLIT = 1 << 31  # mixed into the seed where others mix in the number of an epoch, which is always less


def hold_back(points: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset | None]:
    """Return the points to train on and those held back, both in their original order; none held back if fraction is 0.

    The choice depends only on (number of points, fraction, seed). Raises UserError if either would be empty.
    """
    if fraction == 0:
        return points, None
    n = len(points.x)
    held_back = round(n * fraction)
    if not 0 < held_back < n:
        raise UserError(
            f"params.yaml: train.validation_fraction: must hold back at least one of {counted(n, 'point')} and leave "
            f"at least one to train on, got {fraction}"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(mixed(seed, SPLIT)))
    return _at(points, order[held_back:].sort().values), _at(points, order[:held_back].sort().values)


def _at(points: Dataset, rows: Tensor) -> Dataset:
    return points._replace(x=points.x[rows], y=points.y[rows])


class Validation:
    """The loss at the points held back, and the weights of the first epoch that had the lowest."""

    def __init__(self, net: nn.Module, batch: Batch, patience: int | None) -> None:
        self.net, self.batch, self.patience = net, batch, patience
        self.best = copy.deepcopy(net)
        self.lowest = math.inf
        self.epochs_since = 0  # since the lowest loss

    def measure(self, everywhere: Everywhere, epoch: int) -> float:
        """Return the loss after this epoch; keep the weights if it is the lowest so far.

        Raises UserError if it is not finite.
        """
        loss = everywhere(mean_loss, self.batch).item()
        if not math.isfinite(loss):
            cure = "lower train.learning_rate, or look for extreme values in the data"
            raise UserError(f"the validation loss is {loss} at epoch {epoch}: {cure}")
        self.epochs_since += 1
        if loss < self.lowest:
            self.lowest, self.epochs_since = loss, 0
            self.best.load_state_dict(self.net.state_dict())
        return loss

    def patience_is_over(self) -> bool:
        """Return whether `patience` epochs have passed since the lowest loss."""
        return self.epochs_since == self.patience

    def restore_best(self) -> None:
        """Load the weights that had the lowest loss into the network."""
        self.net.load_state_dict(self.best.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return what is known so far, for `load_state_dict`."""
        return {"best": self.best.state_dict(), "lowest": self.lowest, "epochs_since": self.epochs_since}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError if the best weights are not finite."""
        if not all(values.isfinite().all() for values in state["best"].values()):
            raise ValueError("weights must be finite")
        self.best.load_state_dict(state["best"])
        self.lowest, self.epochs_since = float(state["lowest"]), int(state["epochs_since"])


@torch.no_grad()
def mean_loss(net: nn.Module, loss_function: LossFunction, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss at x, (n, n_feature), and y, (n, n_output), a scalar, in evaluation mode; compute no gradient."""
    return loss_function(network.predict(net, x), y)
