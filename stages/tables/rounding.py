"""Find out whether float32 rounds the numbers of a column too coarsely to learn from them."""

import numpy as np


class Rounding:
    """The largest error by which float32 rounds the values of a column, and their standard deviation."""

    def __init__(self) -> None:
        self.count, self.offset, self.total, self.squares, self.error = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, values: np.ndarray, narrow: np.ndarray) -> None:
        """Include more values, float64 (n,), and the same values as float32; what is not finite is left out."""
        finite = np.isfinite(values)
        values, narrow = values[finite], narrow[finite]
        if not len(values):
            return
        if not self.count:
            # Subtracted for precision; if it is far from the other values, the deviation is large anyway.
            self.offset = float(values[0])
        shifted = values - self.offset
        self.count += len(values)
        self.total += float(shifted.sum())
        self.squares += float((shifted * shifted).sum())
        self.error = max(self.error, float(np.abs(values - narrow).max()))

    def fault(self) -> str:
        """Return what is wrong if the error is more than a thousandth of the deviation; a constant column is fine.

        From 2^53 on, though, different integers are the same even in float64, so a column may only seem constant.
        """
        if not self.count:
            return ""
        mean = self.total / self.count
        deviation = max(self.squares / self.count - mean * mean, 0.0) ** 0.5
        if deviation == 0 and abs(self.offset) >= 2**53:
            return (
                f"its values are too large to tell apart: subtract an offset, such as {self.offset:g}, from all values"
            )
        if deviation == 0 or self.error <= deviation / 1000:
            return ""
        rounded = f"float32 would round its values by up to {self.error:.2g}, too much for their standard deviation of"
        return f"{rounded} {deviation:.2g}: subtract an offset, such as {self.offset:g}, from all values"
