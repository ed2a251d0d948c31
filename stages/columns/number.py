"""A column of numbers."""

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from stages.columns.kind import Kind
from stages.columns.raw import Cells, Notation, Reading

if TYPE_CHECKING:
    import pyarrow as pa


class Number(Kind):
    """Numbers; one that is missing is replaced by the median of the training rows."""

    kind: Literal["number"] = "number"
    fill: float = 0.0
    low: float | None = None  # the least and the greatest in the training rows
    high: float | None = None

    @staticmethod
    def fit(name: str, cells: np.ndarray) -> "Number":
        """Return the column that has these training rows, float32 (n,), not all of them missing."""
        fill, low, high = (float(statistic(cells)) for statistic in (np.nanmedian, np.nanmin, np.nanmax))
        return Number(name=name, gaps=int(np.isnan(cells).sum()), fill=fill, low=low, high=high)

    def labels(self) -> list[str]:
        return [self.name, f"{self.name} (missing)"] if self.gaps else [self.name]

    def expected(self) -> str:
        return "a number"

    def read(self, column: "pa.Array", notation: Notation) -> Reading:
        from stages.columns.cells import narrowed, parsed

        values, texts = parsed(column, notation)
        numbers, problems = narrowed(values)
        unusable = np.any(list(problems.values()), axis=0)
        return Reading(np.where(unusable, np.nan, numbers), texts.is_valid().to_numpy(zero_copy_only=False), unusable)

    def encode(self, cells: Cells) -> np.ndarray:
        assert isinstance(cells, np.ndarray)
        missing = np.isnan(cells)
        filled = np.where(missing, np.float32(self.fill), cells)
        return np.stack([filled, missing], axis=1, dtype=np.float32) if self.gaps else filled[:, None]

    def decode(self, x: np.ndarray) -> list[str]:
        missing = x[:, 1] == 1 if self.gaps else np.zeros(len(x), bool)
        return ["" if empty else f"{value:.9g}" for value, empty in zip(x[:, 0].tolist(), missing, strict=True)]

    def on_axis(self, x: np.ndarray) -> np.ndarray:
        return np.where(x[:, 1] == 1, np.nan, x[:, 0]) if self.gaps else x[:, 0]

    def decision(self) -> str:
        return f"{self.gaps} missing, filled with {self.fill:.6g}" if self.gaps else ""

    def unlike_training(self, cells: Cells) -> np.ndarray:
        assert isinstance(cells, np.ndarray)
        low, high = self.far_limits()
        return (cells < low) | (cells > high)

    def limits(self) -> str:
        return f"far outside the training range {self.low:.6g} to {self.high:.6g}"

    def far_limits(self) -> tuple[float, float]:
        """Return the training range, extended by its width at both ends: what is beyond it is far outside."""
        if self.low is None or self.high is None:
            return -math.inf, math.inf
        width = self.high - self.low
        return self.low - width, self.high + width
