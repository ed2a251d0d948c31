"""Which training rows each network holds back, to measure on them how well it predicts what it has not seen."""

from typing import NamedTuple

import torch
from torch import Tensor

from stages.runtime.seeds import mixed

SPLIT = 1 << 31  # mixed into the seed where training mixes in the number of an epoch, which is always less


class Folds(NamedTuple):
    """How the rows are dealt out: shuffled and cut into folds of equal size, one for each network.

    Where there are more networks than folds, further networks get the folds of further shuffles.
    """

    rows: int  # training rows in all
    size: int  # rows that each network holds back; 0: none
    networks: int
    seed: int

    def held_back(self, classes: Tensor | None = None) -> Tensor:
        """Return the rows that each network holds back, int64 (networks, size), in ascending order.

        If there are classes, int (rows,), each has its share in every fold, to within one row.
        """
        folds = max(1, self.rows // max(1, self.size))  # in a shuffle
        held_back = torch.empty(self.networks, self.size, dtype=torch.int64)
        for first in range(0, self.networks, folds):
            generator = torch.Generator().manual_seed(mixed(self.seed, SPLIT, first // folds))
            order = torch.randperm(self.rows, generator=generator)[: folds * self.size]
            if classes is None:
                dealt = order.view(folds, self.size)
            else:  # like cards sorted by class
                dealt = order[classes[order].argsort(stable=True)].view(self.size, folds).T
            for own, fold in zip(held_back[first:], dealt, strict=False):  # the last shuffle may have folds to spare
                own.copy_(fold.sort().values)
        return held_back


class HeldBack:
    """The rows that each network holds back, by their positions among these."""

    def __init__(self, held_back: Tensor, rows: int) -> None:
        """held_back: int64 (networks, h), ascending; rows: how many there are in all."""
        self.held_back = held_back.to(row_type(rows))

    def at(self, positions: Tensor) -> Tensor:
        """Return the rows at these positions, (k,), of each network: int (networks, k)."""
        return self.held_back[:, positions]

    def of(self, network: int) -> Tensor:
        """Return all rows of a network, int (h,)."""
        return self.held_back[network]


class Kept:
    """All other rows, by their positions among these. Only those that are asked for are ever in memory."""

    def __init__(self, held_back: Tensor, rows: int) -> None:
        """held_back: int64 (networks, h), ascending; rows: how many there are in all."""
        before = held_back - torch.arange(held_back.shape[1], device=held_back.device)
        self.rows, self.before = rows, before.to(row_type(rows))  # how many kept rows stand before each held-back one

    def at(self, positions: Tensor) -> Tensor:
        """Return the rows at these positions, (k,), of each network: int (networks, k)."""
        own = positions.to(self.before.dtype).expand(len(self.before), -1).contiguous()
        return own + torch.searchsorted(self.before, own, right=True, out_int32=own.dtype == torch.int32)

    def of(self, network: int) -> Tensor:
        """Return all rows of a network, int (rows - h,), ascending."""
        before = self.before[network]
        kept = torch.ones(self.rows, dtype=torch.bool, device=before.device)
        kept[before + torch.arange(len(before), device=before.device)] = False
        return kept.nonzero()[:, 0].to(before.dtype)


def row_type(rows: int) -> torch.dtype:
    """Return the smallest type for numbers of that many rows: int32 takes half the memory of int64."""
    return torch.int32 if rows < 1 << 31 else torch.int64
