"""Compute a batch on all ranks and cores: each rank takes a share of it, in micro-batches one after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stages.train.batches import Batch, Batches
from stages.train.loop import Compute, Everywhere, LossFunction
from stages.train.loss import OfEach
from stages.train.ranks import Ranks

SMALL_WORK = 1 << 20  # points times parameters: below this, several cores are slower than one


def on_all_ranks(net: nn.Module, loss_function: LossFunction, ranks: Ranks) -> Everywhere:
    """Return a function that calls a Compute for each micro-batch of a batch, on all ranks.

    It returns the weighted sum of the losses, on the device: the mean over the batch, a scalar or, of several networks,
    (networks,). It raises UserError if another rank is gone.
    """
    several = isinstance(loss_function, OfEach)

    def everywhere(compute: Compute, batch: Batch) -> Tensor:
        loss: Tensor | None = None
        for x, y, fraction in batch.micro_batches:
            own = weighted(loss_function, fraction)
            part = losses_of_each(compute, net, own, x, y) if several else compute(net, own, x, y)
            # In place: keeping the losses of all micro-batches would prevent malloc from reusing their memory.
            loss = part if loss is None else loss.add_(part)
        assert loss is not None
        return ranks.all_reduce(loss, net.parameters())

    return everywhere


def weighted(loss_function: LossFunction, weight: float) -> LossFunction:
    """Return weight times the loss function; for weight 1 the function itself, which saves 4% of the lesson's step."""
    return loss_function if weight == 1 else lambda prediction, y: weight * loss_function(prediction, y)


def losses_of_each(compute: Compute, net: nn.Module, loss_function: LossFunction, x: Tensor, y: Tensor) -> Tensor:
    """Call the Compute with the sum of several networks' losses; return the losses, (networks,).

    The gradient of the sum is that of each network's own loss.
    """
    losses: list[Tensor] = []

    def total(prediction: Tensor, y: Tensor) -> Tensor:
        losses.append(loss_function(prediction, y))
        return losses[-1].sum()

    compute(net, total, x, y)
    return losses[0].detach()


@contextmanager
def enough_cores(net: nn.Module, batches: Batches) -> Iterator[int]:
    """In the block, let torch's operations use one core if a micro-batch is little work, else all that they may use.

    Yield how many they may use.
    """
    cores = torch.get_num_threads()
    n = batches.points.n
    rows = min(batches.size or n, n, batches.micro_size)
    if rows * sum(values.numel() for values in net.parameters()) < SMALL_WORK:
        torch.set_num_threads(1)
    try:
        yield cores
    finally:
        torch.set_num_threads(cores)
