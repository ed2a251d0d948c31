"""Convert cells of a column to numbers, texts or dates, and note which of them cannot be used."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from stages.columns.dates import days
from stages.columns.names import normal_name
from stages.columns.raw import Notation, Texts

ALWAYS_MISSING = csv.ConvertOptions().null_values  # the empty text, NA, NaN, null and the like
NUMBER = (  # {0}: the decimal mark; {1}: the thousands separators
    r"^[+-]?(?:(?:[0-9]+|[1-9][0-9]{{0,2}}(?:[{1}][0-9]{{3}})+)[{0}]?[0-9]*|[{0}][0-9]+)(?:[eE][+-]?[0-9]+)?$"
)
SPACES = " '\u00a0\u202f"
GROUPED = {".": f",{SPACES}", ",": f".{SPACES}"}  # the thousands separators, by the decimal mark
INFINITE = r"^[+-]?(?i:inf|infinity)$"

Problems = dict[str, np.ndarray]  # by problem, the cells that have it, bool (n,)


class Parsed(NamedTuple):
    """Cells as numbers, and as texts where they are none."""

    numbers: np.ndarray  # float64 (n,), nan where there is no number
    texts: pa.Array  # (n,), without the space around them; null where there is a number, or nothing


def parsed(column: pa.Array, notation: Notation) -> Parsed:
    """Return the cells as numbers, and as texts where they are none.

    Text is read as Python's float() reads it, but without underscores, with the digits 0 to 9 alone, and with
    thousands separators. True and false are 1 and 0, as text in upper or lower case. Decimals are converted
    via text, so that they are rounded only once.
    """
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    if any(test(column.type) for test in numeric) or (notation.decimal == "." and pa.types.is_string(column.type)):
        try:
            numbers = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            if pa.types.is_string(column.type):
                numbers = _without_underflow(numbers, column)
            return Parsed(_without(numbers, notation.missing), pa.nulls(len(column), pa.string()))
        except pa.ArrowInvalid:
            pass  # some cells are no plain numbers
    text = text_of(column, notation)
    different = text.dictionary_encode()
    numbers, others = _parsed(different.dictionary, notation.decimal)
    codes = different.indices
    numbers = pc.take(pa.array(numbers, from_pandas=True), codes).to_numpy(zero_copy_only=False)
    return Parsed(_without(numbers, notation.missing), pc.take(others, codes))


def _parsed(texts: pa.Array, decimal: str) -> tuple[np.ndarray, pa.Array]:
    """Return the numbers in texts, float64 (k,), nan where a text is not one; and those texts, (k,), else null."""
    matches = pc.match_substring_regex(texts, NUMBER.format(decimal, GROUPED[decimal]))
    plain = pc.replace_substring_regex(texts, f"[{GROUPED[decimal]}]", "")
    plain = pc.replace_substring(plain, decimal, ".")
    plain = pc.if_else(pc.or_(matches, pc.match_substring_regex(texts, INFINITE)), plain, None)
    truth = pc.index_in(pc.utf8_lower(texts), value_set=pa.array(["false", "true"]))
    numbers = pc.coalesce(pc.cast(plain, pa.float64()), pc.cast(truth, pa.float64()))
    values = _without_underflow(numbers.to_numpy(zero_copy_only=False), texts)
    return values, pc.if_else(pc.is_null(numbers), texts, None)


def _without(numbers: np.ndarray, missing: Sequence[str]) -> np.ndarray:
    """Return the numbers, (n,), with nan in place of those that `missing` lists; texts in it are ignored."""
    markers = _parsed(pa.array(missing, pa.string()), ".")[0]
    markers = markers[~np.isnan(markers)]
    return np.where(np.isin(numbers, markers), np.nan, numbers) if len(markers) else numbers


def arrays_of(rows: Any) -> dict[str, pa.Array]:
    """Return the columns of an Arrow or pandas table, or those that all dicts in a list have, by name.

    Raises ValueError if it is none of these.
    """
    if isinstance(rows, pa.Table):
        return {normal_name(name): rows[name].combine_chunks() for name in rows.column_names}
    if isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        names = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
        return {normal_name(name): _array([row[name] for row in rows]) for name in names}
    if hasattr(rows, "columns"):
        return {normal_name(str(name)): _array(rows[name]) for name in rows.columns}
    raise ValueError("rows must be an Arrow or pandas table, or a list of dicts")


def _array(cells: Any) -> pa.Array:
    """Return cells of one type, or as text if they are of several, or if integers are too large for Arrow."""
    try:
        return pa.array(cells, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if cell is None else str(cell) for cell in cells], from_pandas=True)


def readable(kind: pa.DataType) -> bool:
    """Return whether cells of this type are numbers, texts or dates; lists and binary data are not."""
    if pa.types.is_dictionary(kind):
        return readable(kind.value_type)
    types = pa.types
    kinds = (types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_string)
    return any(
        is_kind(kind)
        for is_kind in (*kinds, types.is_large_string, types.is_string_view, types.is_date, types.is_timestamp)
    )


def empty(column: pa.Array) -> pa.Array:
    """Return a column of missing cells, as long as this one."""
    return pa.nulls(len(column), pa.string())


def text_of(column: pa.Array, notation: Notation) -> pa.Array:
    """Return the cells as text, null where they are missing.

    Equal values have the same text, without space around it: whole numbers are written as integers, whatever their
    type, and letters with accents as single characters (NFC).
    """
    text = _normal(pc.utf8_trim_whitespace(_as_text(column)))
    return pc.if_else(pc.is_in(text, pa.array([*ALWAYS_MISSING, *notation.missing])), None, text)


def coded(column: pa.Array, notation: Notation) -> Texts:
    """Return the cells as texts."""
    different = text_of(column, notation).dictionary_encode()
    codes = different.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return Texts(codes.astype(np.int32), different.dictionary.to_pylist())


def moments(column: pa.Array, form: str, notation: Notation) -> tuple[np.ndarray, np.ndarray]:
    """Return dates in days since 1970-01-01, float64 (n,), nan where there is none, and which are not in this form."""
    if pa.types.is_temporal(column.type):
        return days_of(column), np.zeros(len(column), bool)
    text = text_of(column, notation)
    dates = days(text, form)
    return dates, np.isnan(dates) & pc.is_valid(text).to_numpy(zero_copy_only=False)


def days_of(column: pa.Array) -> np.ndarray:
    """Return dates or timestamps in days since 1970-01-01, float64 (n,), nan where they are missing."""
    microseconds = pc.cast(column, pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False)
    return np.where(np.isnat(microseconds), np.nan, microseconds.astype("datetime64[us]").astype(np.int64) / 86_400e6)


def narrowed(values: np.ndarray) -> tuple[np.ndarray, Problems]:
    """Return float64 values, (n,), as float32, (n,), and which of them float32 cannot hold."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = values.astype(np.float32)
    return narrow, {
        "infinite": np.isinf(values),
        "too large for float32": np.isinf(narrow) & np.isfinite(values),
        "too close to 0 for float32": (np.abs(narrow) < np.finfo(np.float32).tiny) & (values != 0),
    }


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
    different = cells.dictionary_encode()
    texts = [normal_name(text) for text in different.dictionary.to_pylist()]  # pc.utf8_normalize has no NFC, only NFD
    return pc.take(pa.array(texts, pa.string()), different.indices)


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
