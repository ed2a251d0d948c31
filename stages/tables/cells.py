"""Convert the columns of a table to numbers or category codes, and report the cells that cannot be converted."""

import unicodedata
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from stages.runtime.errors import SHOWN_ROWS, UserError, counted, in_rows, printable, short

Problems = dict[str, np.ndarray]  # which rows of a column, bool (n,), have which problem

MISSING = pa.array(csv.ConvertOptions().null_values)  # the empty text, NA, NaN, null and the like
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?(?i:inf|infinity)$"
ADVICE = {
    "missing": "fill in a value, or remove such rows",
    "not numeric": "write numbers like 1234.5, or, if it is a feature, list it in generate.categories",
    "infinite": "remove such rows",
    "too large for float32": "choose a larger unit",
    "too close to 0 for float32": "choose a smaller unit",
    "not in the training rows": "remove such rows, or train on a table that has such values",
}
OTHER_TYPES = "store numbers instead, e.g. a date as the number of days since a fixed day"


@dataclass
class _Fault:
    count: int
    rows: list[int]  # the first of them, counted from 1
    example: str  # `, such as 'x'` for the value in the first of them, or nothing


class Faults:
    """What is wrong with a table, collected to be reported together."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.lines: list[str] = []  # about whole columns
        self.of_cells: dict[tuple[str, str], _Fault] = {}  # by column and problem

    def __bool__(self) -> bool:
        return bool(self.lines or self.of_cells)

    def add(self, name: str, column: pa.Array, problems: Problems, first: int) -> None:
        """Note the problems of a column, or of a part of it; `first` is the number of its first row."""
        for problem, rows in ((problem, np.flatnonzero(mask)) for problem, mask in problems.items()):
            if len(rows):
                named = problem in ADVICE and problem != "missing"
                example = f", such as {short(column[int(rows[0])].as_py())}" if named else ""
                fault = self.of_cells.setdefault((name, problem), _Fault(0, [], example))
                fault.count += len(rows)
                fault.rows = [*fault.rows, *(first + rows[:SHOWN_ROWS]).tolist()][:SHOWN_ROWS]

    def raise_any(self) -> None:
        """Raise UserError with a line for each column and problem, if there are any."""
        lines = list(self.lines)
        for (name, problem), fault in self.of_cells.items():
            are = f"{counted(fault.count, 'value')} {'is' if fault.count == 1 else 'are'} {problem}{fault.example}"
            advice = ADVICE.get(problem, OTHER_TYPES)
            lines.append(f"column {printable(name)}: {are}, {in_rows(fault.count, fault.rows)}: {advice}")
        if lines:
            raise UserError("\n".join(f"{self.path}: {line}" for line in lines))


def numbers(column: pa.Array) -> tuple[np.ndarray, Problems]:
    """Return a column as float64 (n,), and its problems; what is not a finite number is nan or infinite.

    Text is read as Python's float() reads it, but without underscores, and only with the digits 0 to 9. True and false
    are 1 and 0, as text in upper or lower case. Decimals are converted via text, so that they are rounded only once.
    """
    types = pa.types
    if types.is_temporal(column.type) or types.is_binary(column.type):
        return np.full(len(column), np.nan), _of_another_type(column)
    kinds = (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    if not any(is_kind(column.type) for is_kind in kinds):
        return _numbers_in_text(column)
    values = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return values, {"missing": np.isnan(values), "infinite": np.isinf(values)}


def narrowed(values: np.ndarray) -> tuple[np.ndarray, Problems]:
    """Return float64 values, (n,), as float32, (n,), and the problems of those outside the range of float32."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32)
    large = np.isinf(narrow) & np.isfinite(values)
    small = (np.abs(narrow) < np.finfo(np.float32).tiny) & (values != 0)
    return narrow, {"too large for float32": large, "too close to 0 for float32": small}


def text(column: pa.Array) -> tuple[pa.Array, Problems]:
    """Return a column as text without the whitespace around it, null where it is missing, and its problems.

    Equal values have the same text: whole numbers are written as integers, whatever their type, and letters with
    accents as single characters (NFC).
    """
    try:
        cells = _normal(pc.utf8_trim_whitespace(_as_text(column)))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # binary data, for one, is no text
        return pa.nulls(len(column), pa.string()), _of_another_type(column)
    cells = pc.if_else(pc.is_in(cells, MISSING), None, cells)
    return cells, {"missing": pc.is_null(cells).to_numpy(zero_copy_only=False)}


def codes(column: pa.Array, values: list[str]) -> tuple[np.ndarray, Problems]:
    """Return the index in `values` of each row of a column, int (n,), -1 if it is none of them, and its problems."""
    cells, problems = text(column)
    indices = pc.index_in(cells, value_set=_normal(pa.array(values, pa.string()))).fill_null(-1).to_numpy()
    unknown = (indices < 0) & pc.is_valid(cells).to_numpy(zero_copy_only=False)
    return indices, problems | {"not in the training rows": unknown}


class Rounding:
    """The largest error by which float32 rounds the values of a column, and their standard deviation."""

    def __init__(self) -> None:
        self.count, self.offset, self.total, self.squares, self.error = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, values: np.ndarray, narrow: np.ndarray) -> None:
        """Include more values, finite float64 (n,), n ≥ 1, and the same values as float32."""
        if not self.count:
            # Subtracted for precision; if it is far from the other values, the deviation is large anyway.
            self.offset = float(values[0])
        shifted = values - self.offset
        self.count += len(values)
        self.total += float(shifted.sum())
        self.squares += float((shifted * shifted).sum())
        self.error = max(self.error, float(np.abs(values - narrow).max()))

    def fault(self) -> str | None:
        """Return what is wrong if the error is more than a thousandth of the deviation; a constant column is fine.

        From 2^53 on, though, different integers are the same even in float64, so a column may only seem constant.
        """
        mean = self.total / self.count
        deviation = max(self.squares / self.count - mean * mean, 0.0) ** 0.5
        if deviation == 0 and abs(self.offset) >= 2**53:
            return (
                f"its values are too large to tell apart: subtract an offset, such as {self.offset:g}, from all values"
            )
        if deviation == 0 or self.error <= deviation / 1000:
            return None
        rounded = f"float32 would round its values by up to {self.error:.2g}, too much for their standard deviation of"
        return f"{rounded} {deviation:.2g}: subtract an offset, such as {self.offset:g}, from all values"


def _numbers_in_text(column: pa.Array) -> tuple[np.ndarray, Problems]:
    if pa.types.is_string(column.type):
        try:
            values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
            if np.isfinite(values).all():
                return _without_underflow(values, column), {}
        except pa.ArrowInvalid:
            pass  # what follows takes longer, but tells which cells are not numbers
    cells, problems = text(column)
    plain = pc.if_else(pc.match_substring_regex(cells, NUMBER), cells, None)
    truth = pc.index_in(pc.utf8_lower(cells), value_set=pa.array(["false", "true"]))
    values = pc.coalesce(pc.cast(plain, pa.float64()), pc.cast(truth, pa.float64())).to_numpy(zero_copy_only=False)
    values = _without_underflow(values, cells)
    other = np.isnan(values) & pc.is_valid(cells).to_numpy(zero_copy_only=False)
    return values, problems | {"not numeric": other, "infinite": np.isinf(values)}


def _without_underflow(values: np.ndarray, cells: pa.Array) -> np.ndarray:
    """Return values, (n,), with the smallest number above 0 where the text is of one too small for float64."""
    lengths = pc.binary_length(cells).to_numpy(zero_copy_only=False)
    zero = np.flatnonzero((values == 0) & (lengths >= len("1e-324")))
    small = zero[pc.match_substring_regex(cells.take(pa.array(zero)), "^[^eE]*[1-9]").to_numpy(zero_copy_only=False)]
    if not len(small):
        return values
    values = values.copy()  # Arrow's memory cannot be written to
    values[small] = np.nextafter(0, 1)
    return values


def _normal(cells: pa.Array) -> pa.Array:
    """Return text with letters with accents as single characters, as `normal_name` does."""
    if pc.all(pc.string_is_ascii(cells)).as_py():
        return cells
    encoded = cells.dictionary_encode()
    values = (
        unicodedata.normalize("NFC", value) for value in encoded.dictionary.to_pylist()
    )  # Arrow's does not compose
    return pa.array(values, pa.string()).take(encoded.indices)


def _as_text(column: pa.Array) -> pa.Array:
    types = pa.types
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_floating(column.type):
        values = pc.cast(column, pa.float64())
        whole = pc.and_(pc.equal(values, pc.trunc(values)), pc.less(pc.abs(values), 2.0**63))
        integers = pc.cast(pc.if_else(whole, values, None), pa.int64())
        return pc.coalesce(pc.cast(integers, pa.string()), pc.cast(column, pa.string()))
    cells = pc.cast(column, pa.string())
    if types.is_decimal(column.type):
        cells = pc.replace_substring_regex(pc.replace_substring_regex(cells, r"(\..*[1-9])0+$", r"\1"), r"\.0+$", "")
    return cells


def _of_another_type(column: pa.Array) -> Problems:
    return {f"of type {column.type}": np.full(len(column), True)}
