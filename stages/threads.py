"""The threads that compute the gradient of a batch together, each a share of its micro-batches.

Within one operation a second core gains little: the matrix products of so narrow a network are computed on one.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stages.batches import MicroBatch

MOST = 6  # threads: each takes about 40 MB for its micro-batch
Learn = Callable[[nn.Module, MicroBatch], Tensor]  # adds to the gradients, returns the loss, a scalar


class Threads(NamedTuple):
    """The network that is trained and, for further threads, replicas: its parameters, with gradients of their own."""

    net: nn.Module
    replicas: Sequence[nn.Module] = ()
    pool: ThreadPoolExecutor | None = None  # with as many threads as there are networks

    def sum(self, learn: Learn, micro_batches: list[MicroBatch]) -> Tensor:
        """Call learn(net, micro_batch) for each micro-batch, in all threads; return the sum of the losses, scalars.

        The gradients that it leaves in the replicas are added to those of the network.
        """
        nets = [self.net, *self.replicas][: len(micro_batches)]
        if len(nets) == 1:
            return _add_up(learn, self.net, micro_batches)
        shares = [micro_batches[first :: len(nets)] for first in range(len(nets))]
        loss = sum(self.pool.map(_add_up, [learn] * len(nets), nets, shares))
        for replica in nets[1:]:
            for parameter, replicated in zip(self.net.parameters(), replica.parameters(), strict=True):
                if replicated.grad is not None:  # it is None where the parameter is frozen
                    parameter.grad += replicated.grad
                    replicated.grad = None
        return loss


@contextmanager
def started(net: nn.Module, device: torch.device) -> Iterator[Threads]:
    """Yield threads that share the CPU cores that torch may use, or one alone where an accelerator computes."""
    cores = torch.get_num_threads()
    size = min(MOST, cores) if device.type == "cpu" else 1
    with ThreadPoolExecutor(size, initializer=torch.set_num_threads, initargs=(cores // size,)) as pool:
        yield Threads(net, [replicate(net) for _ in range(size - 1)], pool)


def replicate(net: nn.Module) -> nn.Module:
    """Return a copy of a network whose parameters lie in the same memory, but have gradients of their own."""
    return copy.deepcopy(
        net, {id(values): nn.Parameter(values.data, values.requires_grad) for values in net.parameters()}
    )


def _add_up(learn: Learn, net: nn.Module, micro_batches: list[MicroBatch]) -> Tensor:
    loss = learn(net, micro_batches[0])
    for micro_batch in micro_batches[1:]:
        loss += learn(net, micro_batch)  # in place: to keep all losses would keep malloc from reusing memory
    return loss
