"""Which points each step of training learns from.

A batch is what one step averages over. It is computed in micro-batches, whose gradients add up to the batch's: that
bounds the memory, keeps the caches warm, and sums more exactly than one giant batch does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from stages.folds import HeldBack, Kept, row_type
from stages.runtime.chunks import FITTING_VALUES, rows_at_a_time
from stages.runtime.seeds import mixed
from stages.train.ranks import Ranks


class MicroBatch(NamedTuple):
    """Points whose gradient is computed together."""

    x: Tensor  # (k, n_feature), or (networks, k, n_feature) where the networks learn from different points
    y: Tensor  # (k, n_output) or (networks, k, n_output)
    fraction_of_batch: float  # k divided by the number of points in the batch, over all ranks


class Batch(NamedTuple):
    """A rank's share of the points that one step averages over."""

    micro_batches: Iterable[MicroBatch]
    fraction_of_epoch: float  # points in the batch divided by points in the epoch, over all ranks


class Points(NamedTuple):
    """The points that networks learn from: all that there are, or for each network some of them."""

    x: Tensor  # (rows, n_feature)
    y: Tensor  # (rows, n_output)
    n: int  # that a network learns from
    rows: Kept | HeldBack | None = None  # which of them each network learns from; None: all

    def at(self, positions: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return x and y at these positions, int (k,): (k, …) or, where networks differ, (networks, k, …)."""
        if isinstance(positions, slice):
            if not self.rows:
                return self.x[positions], self.y[positions]
            positions = torch.arange(positions.start, positions.stop, device=self.x.device)
        return self.pick(self.rows.at(positions) if self.rows else positions)

    def pick(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and y of rows, int (…, k): (…, k, n_feature) and (…, k, n_output)."""
        return _rows_of(self.x, rows), _rows_of(self.y, rows)


class Batches:
    """Points, cut into the batches of each epoch; each network has an order of its own."""

    def __init__(self, points: Points, size: int | None, micro_size: int, ranks: Ranks, seeds: Sequence[int]) -> None:
        self.points, self.size, self.micro_size, self.ranks, self.seeds = points, size, micro_size, ranks, seeds
        self.share_of_all = self._share(points.at, points.n)  # this rank's share of all points, in their order

    def epoch(self, epoch: int, skip: int = 0, *, seeded: bool = False) -> Iterator[Batch]:
        """Yield the batches of an epoch: all points as one, or shuffled in an order that depends only on (seed, epoch).

        Skip the first `skip` batches, on which a resumed training has already taken its steps. If `seeded`, for a
        network that draws random numbers, seed torch's global generator from (seed, epoch, step, rank) before each.
        """
        batches = iter([self.share_of_all][skip:]) if self.size is None else self._shuffled(self.size, epoch, skip)
        for step, batch in enumerate(batches, start=skip):
            if seeded:
                torch.manual_seed(mixed(self.seeds[0], epoch, step, self.ranks.rank))
            yield batch

    def _shuffled(self, size: int, epoch: int, skip: int) -> Iterator[Batch]:
        for some_x, some_y in self.picks(size, epoch, skip):
            for x, y in zip(some_x.split(size, dim=-2), some_y.split(size, dim=-2), strict=True):
                yield self.share(x, y)

    def picks(self, size: int, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the points of an epoch, shuffled, without the first `skip` batches of that size.

        Each item holds as many whole batches as fit a micro-batch, but at least one: picking them at once is faster.
        """
        order = self.shuffled(epoch)
        if len(order) == 1:
            order = order[0]  # (n,)
        step = size * max(1, self.micro_size // size)
        for first in range(skip * size, self.points.n, step):
            yield self.points.pick(order[..., first : first + step])

    def shuffled(self, epoch: int) -> Tensor:
        """Return the rows of each network's points in the order of an epoch, int (networks, n)."""
        points = self.points
        dtype = row_type(len(points.x))  # of any type, the same numbers are drawn
        order = torch.empty(len(self.seeds), points.n, dtype=dtype, device=points.x.device)
        for network, seed in enumerate(self.seeds):
            generator = torch.Generator().manual_seed(mixed(seed, epoch))
            drawn = torch.randperm(points.n, generator=generator, dtype=dtype).to(order.device)
            order[network] = points.rows.of(network)[drawn] if points.rows else drawn
        return order

    def share(self, x: Tensor, y: Tensor) -> Batch:
        """Return this rank's share of a batch of points, in micro-batches."""
        return self._share(lambda cut: (x[..., cut, :], y[..., cut, :]), x.shape[-2])

    def _share(self, at: Callable[[slice], tuple[Tensor, Tensor]], n: int) -> Batch:
        share = self.ranks.share(n)
        rows = share.stop - share.start
        parts = -(-rows // self.micro_size)  # rounded up; of nearly equal size
        edges = [share.start + rows * part // max(1, parts) for part in range(parts + 1)]
        cuts = [(slice(start, stop), (stop - start) / n) for start, stop in pairwise(edges)]
        # More ranks than points: a point that counts for nothing keeps this rank in step.
        micro_batches: Iterable[MicroBatch] = _Cut(at, cuts or [(slice(0, 1), 0.0)])
        if len(cuts) < 2 or not self.points.rows:
            micro_batches = list(micro_batches)
        return Batch(micro_batches, n / self.points.n)


@dataclass
class _Cut:
    """Micro-batches that are copied out of the points when it is their turn, so that one is in memory at a time."""

    at: Callable[[slice], tuple[Tensor, Tensor]]
    cuts: list[tuple[slice, float]]

    def __iter__(self) -> Iterator[MicroBatch]:
        return (MicroBatch(*self.at(cut), fraction) for cut, fraction in self.cuts)


def _rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """Return these rows of values, (n, k). On the CPU NumPy picks narrow ones three times as fast as torch."""
    if values.device.type != "cpu":
        return values[rows]
    return torch.from_numpy(values.numpy().take(rows.numpy(), axis=0))


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
