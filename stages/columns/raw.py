"""The cells of a column as they were read, before they are encoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Texts:
    """The cells of a column of text; like an array, it has a length and can be indexed by rows."""

    codes: np.ndarray  # int32 (n,): the index in `values` of each cell, -1 where it is missing
    # Unique, in any order; some may be in no row. The empty text stands for the rare ones that were not kept.
    values: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: np.ndarray) -> "Texts":
        return Texts(self.codes[rows], self.values)


class Notation(NamedTuple):
    """How a table writes its cells, where there are several ways."""

    decimal: str = "."  # the decimal mark: a point or a comma
    missing: Sequence[str] = ()  # cells that mean a missing value, besides the empty one, NA and the like


# Numbers are float32 (n,), dates float64 (n,) in days since 1970-01-01; both are nan where the cell is missing.
Cells = np.ndarray | Texts


class Reading(NamedTuple):
    """The n cells of a column, and which of them count as missing because the column cannot hold them."""

    cells: Cells
    other: np.ndarray  # those of another kind, such as text in a column of numbers, bool (n,)
    unusable: np.ndarray  # numbers that float32 cannot hold, bool (n,)

    @property
    def missing(self) -> np.ndarray:
        """Which cells are missing, `other` and `unusable` included, bool (n,)."""
        return self.cells.codes < 0 if isinstance(self.cells, Texts) else np.isnan(self.cells)
