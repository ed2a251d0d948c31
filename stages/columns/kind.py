"""What the kinds of columns have in common.

Their `read` imports cells.py late: pyarrow takes a moment to load, and most stages have only x.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from stages.columns.raw import Cells, Notation, Reading

if TYPE_CHECKING:
    import pyarrow as pa


class Kind(BaseModel, ABC):
    """A column of a table with what was learnt from its training rows: how its cells become columns of x, and back."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    gaps: int = 0  # cells missing in the training rows; if any, the last column of x is 1 where a cell is missing

    @abstractmethod
    def labels(self) -> list[str]:
        """Return the names of its columns of x, such as `age`, or `sex=female` for a level of a category."""

    @abstractmethod
    def expected(self) -> str:
        """Return what a cell must be to be read, such as `a number`."""

    @abstractmethod
    def read(self, column: "pa.Array", notation: Notation) -> Reading:
        """Return the cells of a column of a table, of a type that is `readable`."""

    @abstractmethod
    def encode(self, cells: Cells) -> np.ndarray:
        """Return its columns of x, float32 (n, width), all finite, for n cells."""

    @abstractmethod
    def decode(self, x: np.ndarray) -> list[str]:
        """Return n cells as text, for its columns of x, (n, width); a missing cell is empty."""

    @abstractmethod
    def on_axis(self, x: np.ndarray) -> np.ndarray:
        """Return where to draw the cells with these columns of x, (n, width), on an axis, (n,); nan where missing.

        Dates are in days since 1970-01-01.
        """

    def ticks(self) -> list[str]:
        """Return the names of the places 0, 1, … on that axis; empty if it is one of numbers."""
        return []

    @abstractmethod
    def decision(self) -> str:
        """Return what was decided about its cells that a reader of the results should know; empty if nothing."""

    @abstractmethod
    def unlike_training(self, cells: Cells) -> np.ndarray:
        """Return which cells, (n,), are so unlike the training rows that a prediction may be far off: bool (n,)."""

    @abstractmethod
    def limits(self) -> str:
        """Return what `unlike_training` cells are, to follow a count: `far outside the training range 1 to 9`."""

    @property
    def width(self) -> int:
        """The number of its columns of x."""
        return len(self.labels())
