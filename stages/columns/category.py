"""A column of names."""

import math
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from stages.columns.kind import Kind
from stages.columns.raw import Cells, Notation, Reading, Texts
from stages.runtime.errors import counted

if TYPE_CHECKING:
    import pyarrow as pa

FREQUENT = 3  # training rows, at least, that a value must be in to be a level
MOST_LEVELS = 1000  # at most, the most frequent ones


class Category(Kind):
    """Names, one-hot encoded: a column of x for each level, 1 where the cell has that value, else 0.

    The values that fewer than FREQUENT training rows have share one more level, and so does any value that no training
    row has. If all values in the training rows are levels, a new value is 0 in every column.
    """

    kind: Literal["category"] = "category"
    levels: Annotated[list[str], Field(min_length=1)]  # sorted
    rare: int = 0  # the number of values that share one more level

    @staticmethod
    def fit(name: str, cells: Texts) -> "Category | None":
        """Return the column that has these training rows; None if no value is frequent enough to be a level."""
        counts = np.bincount(cells.codes[cells.codes >= 0], minlength=len(cells.values))
        frequent = [
            code
            for code in np.argsort(-counts, kind="stable")[:MOST_LEVELS]
            if counts[code] >= FREQUENT and cells.values[code]
        ]
        if not frequent:
            return None
        levels = sorted(cells.values[code] for code in frequent)
        rare = int((counts > 0).sum()) - len(levels)
        return Category(name=name, gaps=int((cells.codes < 0).sum()), levels=levels, rare=rare)

    @staticmethod
    def of_classes(name: str, cells: Texts) -> "Category":
        """Return the target with these training rows: each value is a class, in the order of numbers or of text."""
        counts = np.bincount(cells.codes, minlength=len(cells.values))
        values = [cells.values[code] for code in np.flatnonzero(counts)]
        return Category(name=name, levels=sorted(values, key=_number_or_text))

    def labels(self) -> list[str]:
        own = [f"{self.name}={level}" for level in self.levels]
        if self.rare:
            own.append(f"{self.name} (rare)")
        if self.gaps:
            own.append(f"{self.name} (missing)")
        return own

    def expected(self) -> str:
        return "text"

    def read(self, column: "pa.Array", notation: Notation) -> Reading:
        from stages.columns.cells import coded

        none = np.zeros(len(column), bool)
        return Reading(coded(column, notation), none, none)

    def encode(self, cells: Cells) -> np.ndarray:
        assert isinstance(cells, Texts)
        place = {level: index for index, level in enumerate(self.levels)}
        other = len(self.levels) if self.rare else -1
        columns = np.array([place.get(value, other) for value in cells.values] + [other], np.int64)
        if self.gaps:
            columns[-1] = self.width - 1  # for code -1, a missing cell
        own = columns[cells.codes]  # (n,): the column of x that is 1, -1 for none
        return (own[:, None] == np.arange(self.width)).astype(np.float32)

    def decode(self, x: np.ndarray) -> list[str]:
        names = [*self.levels, "(rare)"][: len(self.levels) + (self.rare > 0)] + [""] * (self.gaps > 0) + ["(new)"]
        own = np.where(x.any(axis=1), x.argmax(axis=1), -1)
        return [names[index] for index in own]

    def on_axis(self, x: np.ndarray) -> np.ndarray:
        return np.where(x.any(axis=1), x.argmax(axis=1), np.nan)

    def ticks(self) -> list[str]:
        return [label.removeprefix(self.name)[1:] for label in self.labels()]

    def decision(self) -> str:
        words = [f"a category of {counted(len(self.levels), 'level')}"]
        if self.rare:
            words.append(f"one more for {counted(self.rare, 'rare value')}")
        if self.gaps:
            words.append(f"one more for {counted(self.gaps, 'missing value')}")
        return "; ".join(words)

    def unlike_training(self, cells: Cells) -> np.ndarray:
        assert isinstance(cells, Texts)
        levels = set(self.levels)
        return np.array([*(value not in levels for value in cells.values), False])[cells.codes]

    def limits(self) -> str:
        return "rare or new"


def _number_or_text(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return math.inf, value
