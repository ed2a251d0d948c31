"""What is recorded while the network learns: the loss of every epoch, and snapshots of what it predicts."""

import torch
from torch import Tensor, nn

from stages import dataset
from stages.errors import UserError
from stages.history import Snapshots

DRAWN = 1000  # training points, at most, that the pictures show


class Record:
    """Losses and snapshots, kept on the device of x until the end: to fetch a loss is to wait for its step."""

    def __init__(self, x: Tensor, y: Tensor, epochs: int, snapshot_every: int) -> None:
        drawn = dataset.evenly(len(x), DRAWN).to(x.device)
        self.x, self.y = x[drawn], y[drawn]  # (m, n_feature), (m, n_output)
        self.snapshot_every = snapshot_every
        self.epochs = torch.tensor([*range(0, epochs, snapshot_every), epochs])  # (k,)
        self.losses = x.new_zeros(epochs)
        self.snapshot_losses = x.new_zeros(len(self.epochs))
        self.predictions = y.new_zeros(len(self.epochs), *self.y.shape)  # (k, m, n_output)

    def wants_snapshot(self, epoch: int) -> bool:
        """Tell whether a snapshot is due after that many epochs: after every `snapshot_every`, and after the last."""
        return epoch % self.snapshot_every == 0 or epoch == len(self.losses)

    @torch.no_grad()
    def snap(self, epoch: int, net: nn.Module, loss: Tensor) -> None:
        """Take a snapshot of the network, whose mean loss over all training points is given."""
        k = -(-epoch // self.snapshot_every)
        self.snapshot_losses[k] = loss
        self.predictions[k] = net(self.x)

    def check(self) -> None:
        """Wait for what is recorded so far. Raises UserError where a loss is not finite."""
        epochs = torch.cat([torch.arange(len(self.losses)), self.epochs])
        losses = torch.cat([self.losses, self.snapshot_losses]).cpu()
        diverged = epochs[~losses.isfinite()]
        if len(diverged):
            raise UserError(f"the loss is nan or infinite at epoch {diverged.min()}: lower train.learning_rate")

    def snapshots(self) -> Snapshots:
        """Return the snapshots for the pictures."""
        arrays = self.epochs, self.snapshot_losses.double(), self.x, self.y, self.predictions
        return Snapshots(*(array.cpu().numpy() for array in arrays))
