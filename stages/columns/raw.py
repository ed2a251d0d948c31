"""The cells of a column as they were read, before they are encoded."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Texts:
    """The cells of a column of text; like an array, it has a length and can be indexed by rows."""

    codes: np.ndarray  # int32 (n,): the index in `values` of each cell, -1 where it is missing
    values: list[str]  # different ones, in any order; some may occur in no row

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows: np.ndarray) -> "Texts":
        return Texts(self.codes[rows], self.values)


# Numbers are float32 (n,), dates float64 (n,) in days since 1970-01-01; both are nan where the cell is missing.
Cells = np.ndarray | Texts
