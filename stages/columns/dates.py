"""Read dates and times in text, in the forms that people write."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

YEAR, SHORT_YEAR, MONTH, DAY = r"(?P<year>\d{4})", r"(?P<year>\d\d)", r"(?P<month>\d{1,2})", r"(?P<day>\d{1,2})"
NAME = r"(?P<name>[A-Za-z]{3})[a-z]*\.?"
FORMS = {  # of the date, by the name that stands in messages and models
    "year-month-day": rf"{YEAR}[-/.]{MONTH}[-/.]{DAY}",
    "day/month/year": rf"{DAY}[-/. ]+{MONTH}[-/. ]+{YEAR}",
    "month/day/year": rf"{MONTH}[-/. ]+{DAY}[-/. ]+{YEAR}",
    "day/month/short year": rf"{DAY}[-/.]{MONTH}[-/.]{SHORT_YEAR}",
    "month/day/short year": rf"{MONTH}[-/.]{DAY}[-/.]{SHORT_YEAR}",
    "day month name year": rf"{DAY}[-/. ]+{NAME}[-/, ]+{YEAR}",
    "month name day year": rf"{NAME}[- ]+{DAY}[-, ]+{YEAR}",
    "year-month": rf"{YEAR}-{MONTH}",
}
TIME = r"(?:(?:T| +)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d(?:\.\d+)?))?(?: ?(?P<half>[AaPp])[Mm])?)?"
ZONE = r"(?: ?(?:Z|UTC|(?P<sign>[+-])(?P<zone_hour>\d\d):?(?P<zone_minute>\d\d)))?"
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
PIVOT = 69  # two-digit years below it are 20xx, the others 19xx, as in POSIX


def days(texts: pa.Array, form: str) -> np.ndarray:
    """Return the moments in texts, (n,), in days since 1970-01-01, float64 (n,); nan where a text is not in this form.

    A time with a zone is converted to UTC; one without is taken as it stands.
    """
    parts = pc.extract_regex(texts, f"^(?:{FORMS[form]}){TIME}{ZONE}$")
    fields = {field.name for field in parts.type}

    def number(name: str, default: float) -> np.ndarray:
        if name not in fields:
            return np.full(len(texts), default)
        text = pc.struct_field(parts, name)
        return pc.cast(pc.if_else(pc.equal(text, ""), str(default), text), pa.float64()).to_numpy(zero_copy_only=False)

    def place(name: str, values: list[str]) -> np.ndarray:
        """Return the index of a field's text among the values, -1 where it is none of them."""
        if name not in fields:
            return np.full(len(texts), -1)
        text = pc.utf8_lower(pc.struct_field(parts, name))
        return pc.fill_null(pc.index_in(text, value_set=pa.array(values)), -1).to_numpy()

    year, day = number("year", 0), number("day", 1)
    if "short" in form:
        year = year + np.where(year < PIVOT, 2000, 1900)
    month = place("name", MONTHS) + 1.0 if "name" in fields else number("month", 1)
    hour, minute, second, half = number("hour", 0), number("minute", 0), number("second", 0), place("half", ["a", "p"])
    hour = np.where(half >= 0, hour % 12 + 12 * half, hour)
    zone = (number("zone_hour", 0) * 60 + number("zone_minute", 0)) * np.where(place("sign", ["-"]) == 0, -1, 1)

    exists = (month >= 1) & (month <= 12) & (year >= 1) & (hour < 24) & (minute < 60) & (second < 61)
    months = np.where(exists, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    length = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(int)
    exists &= (day >= 1) & (day <= length)
    first = months.astype("datetime64[D]").astype(np.float64)
    moment = first + day - 1 + (hour * 60 + minute - zone) / 1440 + second / 86400
    return np.where(exists, moment, np.nan)
