"""Compute a batch on all cores and ranks: each rank takes a share of it, each thread some of its micro-batches.

A second core gains little within one operation: the matrix products of such a narrow network run on one.
"""

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stages.train.batches import Batch, Batches, MicroBatch
from stages.train.loop import Compute, LossFunction
from stages.train.ranks import Ranks

MAX_THREADS = 6  # each takes about 40 MB for its micro-batch
SMALL_WORK = 1 << 22  # points times parameters: below this, several threads are slower than one


@dataclass(frozen=True)
class Workers:
    """The network that is trained and, for further threads, replicas that share its parameters, not its gradients."""

    net: nn.Module
    loss_function: LossFunction
    ranks: Ranks
    replicas: Sequence[nn.Module] = ()
    pool: ThreadPoolExecutor | None = None  # with as many threads as there are networks

    def __call__(self, compute: Compute, batch: Batch) -> Tensor:
        """Call compute for each micro-batch of the batch, in all threads and ranks.

        Return the weighted sum of the losses, a scalar on the device: the mean over the batch. The gradients that the
        calls leave in the replicas are added to those of `net`, always in the same order. Raises UserError if another
        rank is gone.
        """
        nets = [self.net, *self.replicas][: len(batch.micro_batches)]
        if len(nets) == 1 or not self.pool:
            loss = self._in_turn(compute, self.net, batch.micro_batches)
        else:
            shares = [batch.micro_batches[first :: len(nets)] for first in range(len(nets))]
            first, *others = self.pool.map(self._in_turn, [compute] * len(nets), nets, shares)
            loss = sum(others, first)
            for replica in nets[1:]:
                self._gather(replica)
        return self.ranks.all_reduce(loss, self.net.parameters())

    def _in_turn(self, compute: Compute, net: nn.Module, micro_batches: Sequence[MicroBatch]) -> Tensor:
        loss: Tensor | None = None
        for x, y, weight in micro_batches:
            part = compute(net, weighted(self.loss_function, weight), x, y)
            # In place: keeping the losses of all micro-batches would prevent malloc from reusing their memory.
            loss = part if loss is None else loss.add_(part)
        assert loss is not None
        return loss

    def _gather(self, replica: nn.Module) -> None:
        for values, replicated in zip(self.net.parameters(), replica.parameters(), strict=True):
            if replicated.grad is not None:  # None where the parameter is frozen, or was not used
                values.grad = replicated.grad if values.grad is None else values.grad.add_(replicated.grad)
                replicated.grad = None


def weighted(loss_function: LossFunction, weight: float) -> LossFunction:
    """Return weight times the loss function; for weight 1 the function itself, which saves 4% of the lesson's step."""
    return loss_function if weight == 1 else lambda prediction, y: weight * loss_function(prediction, y)


@contextmanager
def workers(
    net: nn.Module, loss_function: LossFunction, batches: Batches, *, in_turn: bool = False
) -> Iterator[Workers]:
    """Yield what computes the batches, on the CPU cores that torch may use.

    It uses one thread for an accelerator, if the micro-batches must be computed in turn, or if a batch is too little
    work to share. In the block, torch's operations use the cores that are left to each thread.
    """
    cores = torch.get_num_threads()
    rows = -(-min(batches.size or len(batches.x), len(batches.x)) // batches.ranks.size)  # of a batch, rounded up
    micro_batches = -(-rows // batches.micro_size)
    size = 1 if in_turn or batches.x.device.type != "cpu" else min(MAX_THREADS, cores, micro_batches)
    small = micro_batches == 1 and rows * sum(values.numel() for values in net.parameters()) < SMALL_WORK
    torch.set_num_threads(1 if small else cores // size)
    try:
        with ThreadPoolExecutor(size, initializer=torch.set_num_threads, initargs=(cores // size,)) as pool:
            yield Workers(net, loss_function, batches.ranks, [replicate(net) for _ in range(size - 1)], pool)
    finally:
        torch.set_num_threads(cores)


def replicate(net: nn.Module) -> nn.Module:
    """Return a copy of a network that shares the memory of its parameters and buffers, but has its own gradients."""
    parameters = {id(values): nn.Parameter(values.data, values.requires_grad) for values in net.parameters()}
    return copy.deepcopy(net, {**parameters, **{id(values): values for values in net.buffers()}})
