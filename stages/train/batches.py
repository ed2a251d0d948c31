"""Which points each step of training learns from.

A batch is what one step averages over. It is computed in micro-batches, whose gradients add up to the batch's: that
bounds the memory, keeps the caches warm, and sums more exactly than one giant batch does.
"""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.train.ranks import Ranks


class MicroBatch(NamedTuple):
    """Points whose gradient is computed together."""

    x: Tensor  # (k, n_feature)
    y: Tensor  # (k, n_output)
    weight: float  # k over the points of the batch


class Batch(NamedTuple):
    """A rank's share of the points that one step averages over."""

    micro_batches: list[MicroBatch]
    weight: float  # points of the batch over points of the epoch, those of all ranks counted


class Batches:
    """The points x, (n, n_feature), and y, (n, n_output), cut into the batches of each epoch."""

    def __init__(self, x: Tensor, y: Tensor, size: int | None, micro_size: int, ranks: Ranks, seed: int) -> None:
        self.x, self.y, self.size, self.micro_size, self.ranks, self.seed = x, y, size, micro_size, ranks, seed
        self.full = self._share(x, y)  # all points

    def epoch(self, epoch: int, skip: int = 0, *, seeded: bool = False) -> Iterator[Batch]:
        """Yield the batches of an epoch: all points as one, or shuffled in an order given by (seed, epoch) alone.

        Those that a resumed training has taken a step on are skipped. For a network that draws random numbers torch's
        global generator can be seeded before each batch, from (seed, epoch, step, rank).
        """
        batches = [self.full] if self.size is None else self._shuffled(self.size, epoch)
        for step, batch in enumerate(islice(batches, skip, None), start=skip):
            if seeded:
                torch.manual_seed(_mixed(self.seed, epoch, step, self.ranks.rank))
            yield batch

    def _shuffled(self, size: int, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(_mixed(self.seed, epoch))
        order = torch.randperm(len(self.x), generator=generator).to(self.x.device)
        for rows in order.split(size * max(1, self.micro_size // size)):  # many small batches are picked at once
            for x, y in zip(self.x[rows].split(size), self.y[rows].split(size), strict=True):
                yield self._share(x, y)

    def _share(self, x: Tensor, y: Tensor) -> Batch:
        """Return this rank's share of a batch of points, in micro-batches."""
        share = self.ranks.share(len(x))
        rows = share.stop - share.start
        parts = -(-rows // self.micro_size)  # rounded up; of even size, so that threads end together
        edges = [share.start + rows * part // max(1, parts) for part in range(parts + 1)]
        cuts = [slice(start, stop) for start, stop in pairwise(edges)]
        micro_batches = [MicroBatch(x[cut], y[cut], (cut.stop - cut.start) / len(x)) for cut in cuts]
        if not micro_batches:  # more ranks than points: one that counts for nothing keeps this rank in step
            micro_batches = [MicroBatch(x[:1], y[:1], 0.0)]
        return Batch(micro_batches, len(x) / len(self.x))


def _mixed(*numbers: int) -> int:
    """Return a seed of 32 bits, which is all that a generator reads, mixed from the numbers."""
    return np.random.SeedSequence(numbers).generate_state(1).item()


def fitting_micro_size(device: torch.device, width: int) -> int:
    """Return how many points pay to compute together, for a network of `width` values a point, in and out counted.

    On a CPU 3 MiB of values, which its caches hold: 65,536 points of the lesson. On an accelerator 64 times as many.
    """
    return max(1, (3 << 18 if device.type == "cpu" else 3 << 24) // width)


def keep_freed_memory() -> None:
    """Have glibc's malloc keep memory that is freed for the next operation, which saves a third of its time.

    By default it gives back all but the smallest blocks at once, and the system clears them anew. Once it has seen a
    block freed, it keeps blocks of that size, up to 32 MiB: see M_MMAP_THRESHOLD in mallopt(3). No other malloc minds.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
