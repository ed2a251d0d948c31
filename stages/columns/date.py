"""A column of dates or times."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from stages.columns.kind import Kind
from stages.columns.raw import Cells, Notation, Reading

if TYPE_CHECKING:
    import pyarrow as pa

PERIODS = {"year": 365.2425, "week": 7.0, "day": 1.0}  # days
STEADY = 0.99  # phases hardly vary if their mean, as a vector, is at least this long; it is 1 if all are equal


class Date(Kind):
    """Dates or times, in days since the first in the training rows; one that is missing is replaced by their median.

    Where the training rows span a year, a week or a day, and differ in their place in it, x has its sine and cosine,
    too. A neuron can single out any stretch of that circle, such as the weekends or the summers.
    """

    kind: Literal["date"] = "date"
    form: str  # how the cells are written: one of FORMS in dates.py
    origin: float  # the first in the training rows, in days since 1970-01-01
    fill: float  # their median, in the same unit
    periods: list[Literal["year", "week", "day"]]

    @staticmethod
    def fit(name: str, cells: np.ndarray, form: str) -> "Date":
        """Return the column that has these training rows, float64 (n,), not all of them missing."""
        known = cells[~np.isnan(cells)]
        gaps, origin, fill = len(cells) - len(known), float(known.min()), float(np.median(known))
        periods = [name for name, days in PERIODS.items() if np.ptp(known) + 1 >= days and _varies(known, days)]
        return Date.model_validate(
            {"name": name, "gaps": gaps, "form": form, "origin": origin, "fill": fill, "periods": periods}
        )

    def labels(self) -> list[str]:
        waves = [f"{self.name} ({wave} of the {period})" for period in self.periods for wave in ("sine", "cosine")]
        return [self.name, *waves, *[f"{self.name} (missing)"] * bool(self.gaps)]

    def expected(self) -> str:
        return f"a date written as {self.form}"

    def read(self, column: "pa.Array", notation: Notation) -> Reading:
        from stages.columns.cells import moments

        return Reading(*moments(column, self.form, notation), np.zeros(len(column), bool))

    def encode(self, cells: Cells) -> np.ndarray:
        assert isinstance(cells, np.ndarray)
        missing = np.isnan(cells)
        days = np.where(missing, self.fill, cells)
        phases = [2 * np.pi * (days / PERIODS[period] % 1) for period in self.periods]
        waves = [wave(phase) for phase in phases for wave in (np.sin, np.cos)]
        return np.stack([days - self.origin, *waves, missing], axis=1, dtype=np.float32)[:, : self.width]

    def decode(self, x: np.ndarray) -> list[str]:
        # float32 counts the days of some decades to the minute.
        minutes = np.rint((x[:, 0].astype(np.float64) + self.origin) * 1440).astype("datetime64[m]")
        times = (minutes != minutes.astype("datetime64[D]")).any()
        text = np.datetime_as_string(minutes, unit="m" if times else "D").tolist()
        missing = x[:, -1] == 1 if self.gaps else np.zeros(len(x), bool)
        return ["" if empty else moment for moment, empty in zip(text, missing, strict=True)]

    def on_axis(self, x: np.ndarray) -> np.ndarray:
        days = x[:, 0] + self.origin
        return np.where(x[:, -1] == 1, np.nan, days) if self.gaps else days

    def decision(self) -> str:
        of_periods = f", with the phase of the {' and the '.join(self.periods)}" if self.periods else ""
        filled = f"; {self.gaps} missing, filled with the median" if self.gaps else ""
        return f"dates, in days since {self._first_day()}{of_periods}{filled}"

    def _first_day(self) -> str:
        return str(np.datetime64(int(self.origin // 1), "D"))

    def unlike_training(self, cells: Cells) -> np.ndarray:
        return np.zeros(len(cells), bool)  # new dates are what a model is for

    def limits(self) -> str:
        return ""


def _varies(days: np.ndarray, period: float) -> bool:
    return bool(abs(np.exp(2j * np.pi * days / period).mean()) < STEADY)
