"""The interface by which a training takes its steps, and eager steps, taken one by one with loop.py."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from torch import Tensor
from torch.optim import Optimizer

from stages.runtime.errors import UserError
from stages.train.batches import Batches
from stages.train.loop import Everywhere, descend


class Taken(NamedTuple):
    """Steps that have been taken: some of one epoch and, before them, whole epochs of a step each."""

    loss: Tensor  # the mean over the steps of the last epoch, a scalar or (networks,)
    fraction: float  # points that these averaged over, divided by points in the epoch
    steps: int  # of the last epoch
    earlier_epochs: Tensor | None = None  # the losses of the epochs before, (k,) or (k, networks)


class NotCompiledError(UserError):
    """A training that cannot take compiled steps, at least not here."""

    def __init__(self, why: str, cure: str) -> None:
        """why: what follows "compiled steps", such as "cannot train with LBFGS"; cure: what to do."""
        super().__init__(f"params.yaml: train.steps: compiled steps {why}: {cure}")
        self.why = why


class Steps(Protocol):
    """Takes the steps of a training."""

    fingerprint: dict[str, str]  # what else decides the results bit for bit, by name; known once the steps are ready

    def take(self, position: tuple[int, int], epochs: int) -> Iterator[Taken]:
        """Take the remaining steps of an epoch; if the batch is all points, of up to `epochs` epochs.

        The position is the number of epochs that have ended, and of steps taken since.
        """

    def close(self) -> None:
        """Leave the network as eager steps would, after the last one. Raises UserError if the steps were wrong."""


class EagerSteps:
    """Takes each step by itself, by the five lines of loop.py."""

    def __init__(self, optimizer: Optimizer, batches: Batches, everywhere: Everywhere, *, seeded: bool) -> None:
        self.optimizer, self.batches, self.everywhere, self.seeded = optimizer, batches, everywhere, seeded
        self.fingerprint: dict[str, str] = {}

    def take(self, position: tuple[int, int], epochs: int) -> Iterator[Taken]:
        """Take the remaining steps of one epoch."""
        epoch, skip = position
        batches = self.batches.epoch(epoch, skip, seeded=self.seeded)
        for batch, loss in descend(self.optimizer, batches, self.everywhere):
            yield Taken(loss, batch.fraction_of_epoch, steps=1)

    def close(self) -> None:
        """Do nothing: the network is as it should be."""
