"""What is recorded while the network learns: the loss of every epoch, and its predictions every few epochs."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from stages import dataset
from stages.errors import UserError
from stages.history import Snapshots

DRAWN = 1000  # training points, at most, that the pictures show


class Record:
    """Losses and snapshots. They stay on the device until `settle`, since to fetch a loss is to wait for its step."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        drawn = dataset.evenly(len(x), DRAWN).to(x.device)
        self.x, self.y = x[drawn], y[drawn]  # (m, n_feature), (m, n_output)
        self.losses: list[float] = []  # of the epochs that are over and settled
        self.pending: list[Tensor] = []  # of the epochs since
        self.steps = 0  # of the epoch under way
        self.zero = x.new_zeros(())
        self.epoch_loss = self.zero  # so far
        self.snapshot_epochs: list[int] = []  # k
        self.predictions: list[Tensor] = []  # k of (m, n_output)

    @property
    def epoch(self) -> int:
        """How many epochs are over."""
        return len(self.losses) + len(self.pending)

    @property
    def latest(self) -> float:
        """The loss of the latest epoch that is over and settled, nan before the first."""
        return self.losses[-1] if self.losses else math.nan

    def add(self, loss: Tensor, weight: float) -> None:
        """Record the loss of a step, which has this weight in its epoch."""
        self.epoch_loss = loss if weight == 1 else torch.add(self.epoch_loss, loss, alpha=weight)
        self.steps += 1

    def end_epoch(self) -> None:
        """Record that the epoch under way is over."""
        self.pending.append(self.epoch_loss)
        self.epoch_loss = self.zero
        self.steps = 0

    @torch.no_grad()
    def snap(self, net: nn.Module) -> None:
        """Take a snapshot of the network, as it is before the next epoch."""
        self.snapshot_epochs.append(self.epoch)
        self.predictions.append(net(self.x))

    def settle(self) -> None:
        """Wait for all losses so far. Raises UserError at the first that is not finite."""
        *ended, under_way = torch.stack([*self.pending, self.epoch_loss]).tolist()
        for epoch, loss in enumerate([*ended, under_way], start=len(self.losses)):
            if not math.isfinite(loss):
                raise UserError(f"the loss is {loss} at epoch {epoch}: lower train.learning_rate")
        self.losses += ended
        self.pending.clear()

    def snapshots(self) -> Snapshots:
        """Return the snapshots, each with the loss of the epoch that begins with it."""
        losses = [self.losses[epoch] for epoch in self.snapshot_epochs]
        predictions = torch.stack(self.predictions)  # (k, m, n_output)
        tensors = torch.tensor(self.snapshot_epochs), torch.tensor(losses).double(), self.x, self.y, predictions
        return Snapshots(*(tensor.cpu().numpy() for tensor in tensors))

    def state_dict(self) -> dict[str, Any]:
        """Return what is recorded so far, settled, for `load_state_dict`."""
        self.settle()
        return {
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "steps": self.steps,
            "epoch_loss": self.epoch_loss,
            "snapshot_epochs": self.snapshot_epochs,
            "predictions": torch.stack(self.predictions),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what was recorded."""
        self.losses = state["losses"].tolist()
        self.steps = state["steps"]
        self.epoch_loss = state["epoch_loss"].to(self.x.device)
        self.snapshot_epochs = state["snapshot_epochs"]
        self.predictions = list(state["predictions"].to(self.x.device))
