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

        If there are classes, int (rows,), each has its share in every fold, to one row.
        """
        folds = max(1, self.rows // max(1, self.size))  # in a shuffle
        dealt = []
        for shuffle in range(-(-self.networks // folds)):  # rounded up
            generator = torch.Generator().manual_seed(mixed(self.seed, SPLIT, shuffle))
            order = torch.randperm(self.rows, generator=generator)[: folds * self.size]
            if classes is None:
                dealt.append(order.view(folds, self.size))
            else:
                dealt.append(order[classes[order].argsort(stable=True)].view(self.size, folds).T)
        return torch.cat(dealt)[: self.networks].sort(dim=1).values


def not_among(held_back: Tensor, positions: Tensor) -> Tensor:
    """Return which rows stand at these positions of each network's rows, those that it does not hold back, in order.

    held_back: int64 (networks, h), ascending; positions: (networks, k) or (k,); the result is int64 (networks, k).
    """
    before = held_back - torch.arange(held_back.shape[1], device=held_back.device)  # how many stand before each
    positions = positions.long().expand(len(held_back), -1).contiguous()
    return positions + torch.searchsorted(before, positions, right=True)
