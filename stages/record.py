"""What is recorded while the network learns: the loss of every epoch, and its predictions every few epochs."""

import math

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
        self.losses: list[float] = []  # one an epoch, and at the end that after the last step
        self.pending: list[Tensor] = []
        self.snapshot_epochs: list[int] = []  # k
        self.predictions: list[Tensor] = []  # k of (m, n_output)

    @torch.no_grad()
    def snap(self, epoch: int, net: nn.Module) -> None:
        """Take a snapshot of the network as it is before the step of an epoch."""
        self.snapshot_epochs.append(epoch)
        self.predictions.append(net(self.x))

    def settle(self) -> float:
        """Wait for the pending losses and return the last. Raises UserError at the first that is not finite."""
        for loss in torch.stack(self.pending).tolist():
            if not math.isfinite(loss):
                raise UserError(f"the loss is {loss} at epoch {len(self.losses)}: lower train.learning_rate")
            self.losses.append(loss)
        self.pending.clear()
        return self.losses[-1]

    def snapshots(self) -> Snapshots:
        """Return the snapshots, each with the loss of the epoch that begins with it."""
        losses = [self.losses[epoch] for epoch in self.snapshot_epochs]
        predictions = torch.stack(self.predictions)  # (k, m, n_output)
        tensors = torch.tensor(self.snapshot_epochs), torch.tensor(losses).double(), self.x, self.y, predictions
        return Snapshots(*(tensor.cpu().numpy() for tensor in tensors))
