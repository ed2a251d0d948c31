"""Record how the network learns: the loss of every epoch, and the network's predictions every few epochs."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.dataset import Dataset
from stages.folds import Folds, Kept
from stages.history import Snapshots
from stages.network import predict
from stages.runtime.errors import UserError
from stages.runtime.spread import evenly_spread

SNAPSHOT_ROWS = 1000  # the pictures show at most this many training points
SNAPSHOT_VALUES = 100_000  # that are predicted for them, at most, if there are hundreds of classes
PENDING_LOSSES = 32  # kept as separate tensors before they are stored together


def snapshot_points(points: Dataset, folds: Folds) -> Dataset:
    """Return the points whose predictions a snapshot holds: at most SNAPSHOT_ROWS, evenly spread, as copies.

    They are among those that one network learns from, or among all, if there are several.
    """
    several = folds.networks > 1
    at_most = max(1, min(SNAPSHOT_ROWS, SNAPSHOT_VALUES // points.y.shape[1]))
    rows = torch.tensor(evenly_spread(folds.rows if several else folds.rows - folds.size, at_most))
    if folds.size and not several:
        rows = Kept(folds.held_back(points.classes), folds.rows).at(rows)[0]
    return points._replace(x=points.x[rows], y=points.y[rows])


def mean_of_networks(losses: Tensor) -> Tensor:
    """Return losses, (k,) of one network or (k, networks), as one for all, (k,)."""
    return losses.mean(dim=1) if losses.ndim > 1 else losses


def mean_and_spread(name: str, losses: Tensor) -> dict[str, list[float]]:
    """Return a column of loss.csv and, of several networks, (k, networks), their mean and standard deviation."""
    columns = {name: mean_of_networks(losses).tolist()}
    if losses.ndim > 1:
        columns[f"{name}_std"] = losses.std(dim=1).tolist()
    return columns


class Record:
    """Losses and snapshots, on the device. Only `settle` fetches losses, since fetching one waits for its step.

    Their memory is allocated at the start: many small tensors, made between steps and kept, would fragment the memory
    that malloc reuses for micro-batches, and the process would grow and grow.
    """

    def __init__(self, x: Tensor, n_output: int, epochs: int, snapshot_every: int, networks: int = 1) -> None:
        """Record up to `epochs` epochs; snapshots hold the predictions for x, (m, n_feature), on the device."""
        self.x = x
        self.epochs, self.snapshot_every = epochs, snapshot_every
        snapshots = -(-epochs // snapshot_every) + 1  # rounded up, and one after the last epoch
        each = () if networks == 1 else (networks,)  # a loss and predictions of each network
        self.predictions = x.new_empty(snapshots, *each, len(x), n_output)  # (k, m, n_output)
        self.snapshots_taken = 0
        self.losses = x.new_empty(epochs + 1, *each)  # of each epoch, and of the one in progress, or after the last
        self.columns: dict[str, list[float]] = {}  # the other columns of loss.csv, a value for each ended epoch
        self.pending: list[Tensor] = []  # losses of the latest epochs that are not in self.losses yet
        self.zero = x.new_zeros(each)
        self.epoch_loss = self.zero  # of the current epoch, so far
        self.steps = 0  # in the current epoch
        self.epoch = 0  # the current epoch, counted from 0
        self.settled = 0  # epochs whose loss is known to be finite
        self.latest: dict[str, float] = {}  # the loss of the last of these epochs, and its columns

    @property
    def position(self) -> tuple[int, int]:
        """How many epochs have ended, and how many steps were taken since."""
        return self.epoch, self.steps

    def add_epochs(self, losses: Tensor) -> None:
        """Record epochs of one step each, which have ended, by their losses, (k,)."""
        self._store()
        self.losses[self.epoch : self.epoch + len(losses)] = losses
        self.epoch += len(losses)

    def add(self, loss: Tensor, fraction: float, steps: int = 1) -> None:
        """Record steps of the current epoch: their mean loss, a scalar or (networks,), over a fraction of its points.

        Raises UserError if the very first loss is not finite: that cannot be the learning rate's fault.
        """
        if self.epoch == self.steps == 0 and not loss.isfinite().all():
            raise UserError(
                f"the loss is {loss.mean().item()} before the first step: set network.standardize to true, or "
                "scale the data"
            )
        self.epoch_loss = loss if fraction == 1 else torch.add(self.epoch_loss, loss, alpha=fraction)
        self.steps += steps

    def end_epoch(self, columns: dict[str, float]) -> None:
        """Record the end of the current epoch, and its values in other columns of loss.csv, the same in every epoch."""
        for name, value in columns.items():
            self.columns.setdefault(name, []).append(value)
        self.pending.append(self.epoch_loss)
        self.epoch_loss, self.steps, self.epoch = self.zero, 0, self.epoch + 1
        if len(self.pending) == PENDING_LOSSES:
            self._store()

    def epochs_to_snapshot(self) -> int:
        """Return how many epochs are left until the next snapshot, or until the end of the training."""
        return min(self.snapshots_taken * self.snapshot_every, self.epochs) - self.epoch

    def snap(self, net: nn.Module) -> None:
        """Take a snapshot of the network, as it is before the next step, if one is due."""
        if self.epoch == self.snapshots_taken * self.snapshot_every:
            self._snap(net)

    def end(self, net: nn.Module, loss: Tensor) -> None:
        """Record the network after its last epoch, and its loss. Raises UserError if that is not finite."""
        self._snap(net)
        self.add(loss, fraction=1)
        self.settle()

    def settle(self) -> None:
        """Fetch all losses so far and check them. Raises UserError at the first that is not finite."""
        self._store()
        losses = mean_of_networks(self.losses[self.settled : self.epoch + 1]).tolist()
        for epoch, loss in enumerate(losses, start=self.settled):
            if not math.isfinite(loss):
                raise UserError(f"the loss is {loss} at epoch {epoch}: lower train.learning_rate")
        if self.epoch > self.settled:
            self.latest = {"loss": losses[-2], **{name: values[-1] for name, values in self.columns.items()}}
        self.settled = self.epoch

    def curves(self) -> dict[str, list[float]]:
        """Return the columns of loss.csv: loss, the mean of each epoch's losses before its steps, and the others."""
        return {**mean_and_spread("loss", self.losses[: self.epoch]), **self.columns}

    def snapshots(self, shown: Dataset) -> Snapshots:
        """Return the snapshots, each with the loss of the epoch that begins with it; `shown`: the points, on CPU."""
        epochs = np.arange(self.snapshots_taken) * self.snapshot_every  # int64 (k,)
        epochs[-1] = self.epoch
        losses = mean_of_networks(self.losses).cpu().numpy()[epochs].astype(np.float64)
        predictions = self._taken().cpu()
        each = predictions.numpy() if predictions.ndim > 3 else None
        mean = predictions.mean(dim=1) if predictions.ndim > 3 else predictions
        return Snapshots(epochs, losses, shown.x.numpy(), shown.y.numpy(), mean.numpy(), each, columns=shown.columns)

    def state_dict(self) -> dict[str, Any]:
        """Return what is recorded so far, settled, for `load_state_dict`."""
        self.settle()
        return {
            "losses": self.losses[: self.epoch + 1].clone(),  # a view would save all of its storage
            "columns": {name: torch.tensor(values, dtype=torch.float64) for name, values in self.columns.items()},
            "predictions": self._taken().clone(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError if a column does not have a value for each epoch."""
        self.epoch, self.steps = len(state["losses"]) - 1, state["steps"]
        self.columns = {name: values.tolist() for name, values in state["columns"].items()}
        if any(len(values) != self.epoch for values in self.columns.values()):
            raise ValueError("columns must have a value for each epoch")
        self.snapshots_taken = len(state["predictions"])
        self.losses[: self.epoch + 1] = state["losses"]
        self.epoch_loss = self.losses[self.epoch]
        self._taken()[:] = state["predictions"]
        self.settle()

    def _snap(self, net: nn.Module) -> None:
        self.predictions[self.snapshots_taken] = predict(net, self.x)
        self.snapshots_taken += 1

    def _taken(self) -> Tensor:
        return self.predictions[: self.snapshots_taken]

    def _store(self) -> None:
        values = torch.stack([*self.pending, self.epoch_loss])
        self.losses[self.epoch - len(self.pending) : self.epoch + 1] = values
        self.pending.clear()
