"""Which points each step of training learns from.

A batch is what one step averages over. It is computed in micro-batches, whose gradients add up to the batch's: that
bounds the memory, keeps the caches warm, and sums more exactly than one giant batch does.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stages.runtime.chunks import FITTING_VALUES, rows_at_a_time
from stages.train.ranks import Ranks


class MicroBatch(NamedTuple):
    """Points whose gradient is computed together."""

    x: Tensor  # (k, n_feature)
    y: Tensor  # (k, n_output)
    fraction_of_batch: float  # k divided by the number of points in the batch, over all ranks


class Batch(NamedTuple):
    """A rank's share of the points that one step averages over."""

    micro_batches: list[MicroBatch]
    fraction_of_epoch: float  # points in the batch divided by points in the epoch, over all ranks


class Batches:
    """The points x, (n, n_feature), and y, (n, n_output), cut into the batches of each epoch."""

    def __init__(self, x: Tensor, y: Tensor, size: int | None, micro_size: int, ranks: Ranks, seed: int) -> None:
        self.x, self.y, self.size, self.micro_size, self.ranks, self.seed = x, y, size, micro_size, ranks, seed
        self.share_of_all = self.share(x, y)  # this rank's share of all points, in their order

    def epoch(self, epoch: int, skip: int = 0, *, seeded: bool = False) -> Iterator[Batch]:
        """Yield the batches of an epoch: all points as one, or shuffled in an order that depends only on (seed, epoch).

        Skip the first `skip` batches, on which a resumed training has already taken its steps. If `seeded`, for a
        network that draws random numbers, seed torch's global generator from (seed, epoch, step, rank) before each.
        """
        batches = iter([self.share_of_all][skip:]) if self.size is None else self._shuffled(self.size, epoch, skip)
        for step, batch in enumerate(batches, start=skip):
            if seeded:
                torch.manual_seed(mixed(self.seed, epoch, step, self.ranks.rank))
            yield batch

    def _shuffled(self, size: int, epoch: int, skip: int) -> Iterator[Batch]:
        for some_x, some_y in self.picks(size, epoch, skip):
            for x, y in zip(some_x.split(size), some_y.split(size), strict=True):
                yield self.share(x, y)

    def picks(self, size: int, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the points of an epoch, shuffled, without the first `skip` batches of that size.

        Each item holds as many whole batches as fit a micro-batch, but at least one: picking them at once is faster.
        """
        generator = torch.Generator().manual_seed(mixed(self.seed, epoch))
        order = torch.randperm(len(self.x), generator=generator).to(self.x.device)
        step = size * max(1, self.micro_size // size)
        for first in range(skip * size, len(order), step):
            rows = order[first : first + step]
            yield _rows_of(self.x, rows), _rows_of(self.y, rows)

    def share(self, x: Tensor, y: Tensor) -> Batch:
        """Return this rank's share of a batch of points, in micro-batches."""
        share = self.ranks.share(len(x))
        rows = share.stop - share.start
        parts = -(-rows // self.micro_size)  # rounded up; of nearly equal size
        edges = [share.start + rows * part // max(1, parts) for part in range(parts + 1)]
        cuts = [slice(start, stop) for start, stop in pairwise(edges)]
        micro_batches = [MicroBatch(x[cut], y[cut], (cut.stop - cut.start) / len(x)) for cut in cuts]
        if not micro_batches:  # more ranks than points: one that counts for nothing keeps this rank in step
            micro_batches = [MicroBatch(x[:1], y[:1], 0.0)]
        return Batch(micro_batches, len(x) / len(self.x))


def _rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """Return these rows of values, (n, k). On the CPU NumPy picks narrow ones three times as fast as torch."""
    if values.device.type != "cpu":
        return values[rows]
    return torch.from_numpy(values.numpy().take(rows.numpy(), axis=0))


def mixed(*numbers: int) -> int:
    """Return a 32-bit seed mixed from the numbers; torch's CPU generator reads no more bits than that."""
    return np.random.SeedSequence(numbers).generate_state(1).item()


def fitting_micro_size(device: torch.device, width: int) -> int:
    """Return the fastest number of points to compute together; `width` is a point's values: inputs, hidden, outputs.

    On a CPU their values fit its caches; on an accelerator, which computes more in parallel, they are 64 times as many.
    """
    return rows_at_a_time(width, FITTING_VALUES * (1 if device.type == "cpu" else 64))


def keep_freed_memory() -> None:
    """Have glibc's malloc keep freed memory for the next operation, which saves a third of the time.

    By default it returns all but small blocks to the system at once, which has to clear them again on the next use.
    Once a block of some size up to 32 MiB has been freed, it keeps blocks up to that size: see M_MMAP_THRESHOLD in
    mallopt(3). Other mallocs are unaffected.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
