"""Hold points back from training, and measure after each epoch how well the network predicts them."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from stages import network
from stages.folds import Folds, HeldBack, Kept
from stages.runtime.errors import UserError, counted
from stages.train.batches import Batch, Points
from stages.train.loop import Everywhere, LossFunction


def folds_of(rows: int, fraction: float, networks: int, seed: int) -> Folds:
    """Return how many of the training rows each network holds back, and by which seed.

    Raises UserError if it would hold back or keep none, though the fraction is above 0.
    """
    folds = Folds(rows, round(rows * fraction), networks, seed)
    if fraction > 0 and not 0 < folds.size < rows:
        raise UserError(
            f"params.yaml: train.validation_fraction: must hold back at least one of {counted(rows, 'point')} and "
            f"leave at least one to train on, got {fraction}"
        )
    return folds


def hold_back(x: Tensor, y: Tensor, folds: Folds, classes: Tensor | None = None) -> tuple[Points, Points | None]:
    """Return the points to train on and those held back, both in their original order; None if none are held back.

    One network gets copies; of several, each picks its own points out of x, (n, n_feature), and y, (n, n_output).
    classes: int64 (n,), if the target is a category.
    """
    if not folds.size:
        return Points(x, y, folds.rows), None
    held_back = folds.held_back(classes).to(x.device)  # (networks, h)
    kept = folds.rows - folds.size
    own_kept, own = Kept(held_back, folds.rows), HeldBack(held_back, folds.rows)
    if folds.networks == 1:
        rows = own_kept.of(0)
        return Points(x[rows], y[rows], kept), Points(x[held_back[0]], y[held_back[0]], folds.size)
    return Points(x, y, kept, own_kept), Points(x, y, folds.size, own)


class Validation:
    """The loss at the points held back, and the weights of the first epoch that had the lowest: each network's own."""

    def __init__(self, net: nn.Module, batch: Batch, patience: int | None, networks: int) -> None:
        self.net, self.batch, self.patience = net, batch, patience
        self.best = copy.deepcopy(net)
        self.lowest = [math.inf] * networks
        self.epochs_since = [0] * networks  # since the lowest loss

    def measure(self, everywhere: Everywhere, epoch: int) -> Tensor:
        """Return the loss after this epoch, a scalar or (networks,); keep the weights of each that has its lowest.

        Raises UserError if a loss is not finite.
        """
        loss = everywhere(mean_loss, self.batch).cpu()
        if not loss.isfinite().all():
            cure = "lower train.learning_rate, or look for extreme values in the data"
            raise UserError(f"the validation loss is {loss.mean().item()} at epoch {epoch}: {cure}")
        better = []
        for index, own in enumerate(loss.reshape(-1).tolist()):
            if self.epochs_since[index] == self.patience:
                continue
            self.epochs_since[index] += 1
            if own < self.lowest[index]:
                self.lowest[index], self.epochs_since[index] = own, 0
                better.append(index)
        if len(better) == loss.numel():
            self.best.load_state_dict(self.net.state_dict())
        elif better:
            for best, now in zip(self.best.state_dict().values(), self.net.state_dict().values(), strict=True):
                best[better] = now[better]
        return loss

    def patience_is_over(self) -> bool:
        """Return whether `patience` epochs have passed since the lowest loss of each network."""
        return all(epochs == self.patience for epochs in self.epochs_since)

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
        self.lowest = [float(loss) for loss in state["lowest"]]
        self.epochs_since = [int(epochs) for epochs in state["epochs_since"]]


@torch.no_grad()
def mean_loss(net: nn.Module, loss_function: LossFunction, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss at x, (n, n_feature), and y, (n, n_output), in evaluation mode; compute no gradient."""
    return loss_function(network.predict(net, x), y)
