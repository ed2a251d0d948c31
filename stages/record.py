"""What is recorded while the network learns: the loss of every epoch, and its predictions every few epochs."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages import dataset
from stages.errors import UserError
from stages.history import Snapshots

DRAWN = 1000  # training points, at most, that the pictures show
FEW = 32  # losses


class Record:
    """Losses and snapshots. They stay on the device until `settle`, since to fetch a loss is to wait for its step.

    They go to places kept free for them: many small tensors made between steps, and kept, would split the memory that
    malloc has at hand for micro-batches, which would then take ever more.
    """

    def __init__(self, x: Tensor, y: Tensor, epochs: int, snapshot_every: int) -> None:
        drawn = dataset.evenly(len(x), DRAWN).to(x.device)
        self.x, self.y = x[drawn], y[drawn]  # (m, n_feature), (m, n_output)
        snapshots = len(range(0, epochs, snapshot_every)) + 1  # k
        self.predictions = y.new_empty(snapshots, *self.y.shape)  # (k, m, n_output)
        self.snapshot_epochs = np.append(np.arange(0, epochs, snapshot_every), epochs)  # int64 (k,)
        self.snapshots_taken = 0
        self.losses = y.new_empty(epochs + 2)  # of each epoch, after the last, and of the epoch under way
        self.pending: list[Tensor] = []  # losses of the latest epochs, a few, that are not in their place yet
        self.zero = y.new_zeros(())
        self.epoch_loss = self.zero  # of the epoch under way, so far
        self.steps = 0  # of the epoch under way
        self.epoch = 0  # how many are over
        self.settled = 0  # of those, how many have a loss that is known to be finite
        self.latest = math.nan  # loss of those

    def add(self, loss: Tensor, weight: float) -> None:
        """Record the loss of a step, which has this weight in its epoch."""
        self.epoch_loss = loss if weight == 1 else torch.add(self.epoch_loss, loss, alpha=weight)
        self.steps += 1

    def end_epoch(self) -> None:
        """Record that the epoch under way is over."""
        self.pending.append(self.epoch_loss)
        self.epoch_loss, self.steps, self.epoch = self.zero, 0, self.epoch + 1
        if len(self.pending) == FEW:
            self.place()

    def place(self) -> None:
        """Put all losses so far in their place."""
        values = torch.stack([*self.pending, self.epoch_loss])
        self.losses[self.epoch - len(self.pending) : self.epoch + 1] = values
        self.pending.clear()

    def snap(self, net: nn.Module) -> None:
        """Take a snapshot of the network, as it is before the next step, if one is due."""
        if self.epoch == self.snapshot_epochs[self.snapshots_taken]:
            with torch.no_grad():
                self.predictions[self.snapshots_taken] = net(self.x)
            self.snapshots_taken += 1

    def settle(self) -> None:
        """Wait for all losses so far. Raises UserError at the first that is not finite."""
        self.place()
        losses = self.losses[self.settled : self.epoch + 1].tolist()
        for epoch, loss in enumerate(losses, start=self.settled):
            if not math.isfinite(loss):
                raise UserError(f"the loss is {loss} at epoch {epoch}: lower train.learning_rate")
        if self.epoch > self.settled:
            self.latest = losses[-2]
        self.settled = self.epoch

    def snapshots(self) -> Snapshots:
        """Return the snapshots, each with the loss of the epoch that begins with it."""
        losses, *arrays = (kept.cpu().numpy() for kept in (self.losses, self.x, self.y, self.predictions))
        return Snapshots(self.snapshot_epochs, losses[self.snapshot_epochs].astype(np.float64), *arrays)

    def state_dict(self) -> dict[str, Any]:
        """Return what is recorded so far, settled, for `load_state_dict`."""
        self.settle()
        return {
            "losses": self.losses[: self.epoch + 1].clone(),  # else what is still empty would be saved along
            "predictions": self.predictions[: self.snapshots_taken].clone(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what was recorded."""
        self.epoch, self.steps = len(state["losses"]) - 1, state["steps"]
        self.snapshots_taken = len(state["predictions"])
        self.losses[: self.epoch + 1] = state["losses"]
        self.epoch_loss = self.losses[self.epoch]
        self.predictions[: self.snapshots_taken] = state["predictions"]
        self.settle()
