"""Gather the cells of a column, a batch at a time, then decide from all of them what kind of column it is."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.columns import Cells, Texts
from stages.columns.cells import Notation, Problems, days_of, moments, narrowed, parsed, readable, text_of
from stages.columns.dates import FORMS, days
from stages.runtime.errors import counted, in_rows, short
from stages.tables.rounding import Rounding

STRAY = 0.05  # the share of cells that may be of another kind than the rest; they count as missing
MOST_TEXTS = 1 << 20  # unique ones that are kept of a column; the text of all others is empty
SHOWN_TEXTS = 8
NOUNS = {"date": "dates", "empty": "no values", "unreadable": "values of another type"}


class Column(NamedTuple):
    """The cells of a column, and what kind of column they make."""

    kind: Literal["number", "category", "date", "ambiguous", "mixed", "empty", "unreadable"]
    cells: Cells
    other: np.ndarray  # which cells are of another kind than the rest, bool (n,), and missing in `cells`
    examples: Sequence[str] = ()  # of those; of ambiguous dates; of an unreadable column, the type of its cells
    forms: Sequence[str] = ()  # of dates: how they are written, one of FORMS; two if that is ambiguous
    read_as: str = ""  # how to read the column again to get all its cells, as in `Gathering`; "" if it need not be

    @property
    def noun(self) -> str:
        """What a cell is, unless it is of another kind: the word for messages."""
        return "date" if self.forms else "number"

    def fault(self, *, is_target: bool, alone: bool = True) -> str:
        """Return why the column cannot be used, and what to do; nothing if it can. alone: as the only target."""
        if self.kind == "ambiguous":
            readings = [str(np.datetime64(int(days(pa.array(self.examples), form)[0]), "D")) for form in self.forms]
            return f"{short(self.examples[0])} may be {' or '.join(readings)}: set generate.day_first to true or false"
        if self.kind == "mixed":
            some = f"{self.other.sum()} of {counted(len(self.other), 'value')} are not {self.noun}s"
            texts = f"such as {', '.join(map(short, self.examples[:SHOWN_TEXTS]))}, {self.other_rows()}"
            ways = "correct them" if is_target and not alone else "list the column in generate.categories"
            return f"{some}, {texts}: list them in generate.missing if they mean a missing value, or {ways}"
        if is_target and self.kind == "category" and not alone:
            return "must be numbers to be one of several targets, got text: make it the only generate.target"
        if is_target and self.kind not in ("number", "category"):
            return f"must be numbers or text to be a target, got {NOUNS[self.kind]}: choose another generate.target"
        return ""

    def other_rows(self) -> str:
        """Return in which rows cells of another kind are."""
        return in_rows(int(self.other.sum()), (np.flatnonzero(self.other)[:SHOWN_TEXTS] + 1).tolist())

    def strays(self) -> str:
        """Return how many cells of another kind count as missing; nothing if there are none."""
        if not self.other.any():
            return ""
        values = f"{counted(int(self.other.sum()), 'value')} not a {self.noun}, such as {short(self.examples[0])}"
        return f"the missing include {values}, {self.other_rows()}"


class _Growing:
    """An array that grows as rows are put into it; rows that were never put in have the fill value."""

    def __init__(self, fill: np.float32 | np.int32) -> None:
        self.fill, self.values = fill, np.empty(0, fill.dtype)

    def put(self, first: int, rows: np.ndarray) -> None:
        """Put in rows, (k,), from this one on."""
        self.values = self.values.astype(np.promote_types(self.values.dtype, rows.dtype), copy=False)
        if first + len(rows) > len(self.values):
            self._resize(max(first + len(rows), len(self.values) * 5 // 4))
        self.values[first : first + len(rows)] = rows

    def taken(self, n: int) -> np.ndarray:
        """Return the first n rows, and forget them."""
        self._resize(n)
        values, self.values = self.values, np.empty(0, self.fill.dtype)
        return values

    def _resize(self, n: int) -> None:
        known = len(self.values)
        self.values.resize(n, refcheck=False)  # the system moves large arrays without a copy
        self.values[known:] = self.fill


class Gathering:
    """The cells of a column so far.

    read_as: `category`; `text`, for a category or dates; one of FORMS, for such dates; or nothing, to find out.
    """

    def __init__(self, read_as: str) -> None:
        self.read_as = read_as
        self.n = 0  # rows
        self.numbers = _Growing(np.float32(np.nan))  # (n,), nan where there is none; float64 for dates
        self.codes = _Growing(np.int32(-1))  # (n,): the index in `texts`, -1 where there is none
        self.texts: dict[str, int] = {}
        self.rounding = Rounding()
        self.dates = read_as in FORMS  # whether `numbers` are dates
        self.unreadable = ""  # the type of the cells if it is not for numbers, texts or dates

    def add(self, batch: pa.Array, notation: Notation) -> Problems:
        """Add a batch, (k,), and return its problems."""
        numbers, texts, problems = np.empty(0, np.float32), pa.array([], pa.string()), Problems()
        if not readable(batch.type):
            self.unreadable = str(batch.type)
        elif self.read_as in FORMS:
            numbers, other = moments(batch, self.read_as, notation)
            texts = pc.if_else(pa.array(other), text_of(batch, notation), None)
        elif self.read_as:
            texts = text_of(batch, notation)
        elif pa.types.is_temporal(batch.type):
            self.dates, numbers = True, days_of(batch)
        else:
            values, texts = parsed(batch, notation)
            numbers, problems = narrowed(values)
            self.rounding.add(values, numbers)
        self.numbers.put(self.n, numbers)
        if texts.null_count < len(texts):
            self.codes.put(self.n, self._coded(texts))
        self.n += len(batch)
        return problems

    def _coded(self, texts: pa.Array) -> np.ndarray:
        different = texts.dictionary_encode()
        values = different.dictionary.to_pylist()
        for value in values:
            if len(self.texts) < MOST_TEXTS:
                self.texts.setdefault(value, len(self.texts))
        codes = np.array([*(self.texts.get(value, MOST_TEXTS) for value in values), -1], np.int32)
        return codes[different.indices.fill_null(-1).to_numpy(zero_copy_only=False)]

    def column(self, day_first: bool | None) -> Column:
        """Return the column, and forget what was gathered.

        day_first: whether 1/2/2020 is in February; None to decide that from the other dates of the column.
        """
        numbers, none = self.numbers.taken(self.n), np.broadcast_to(np.False_, self.n)
        if self.unreadable:
            return Column("unreadable", numbers, none, [self.unreadable])
        n_numbers = self.n - int(np.isnan(numbers).sum())
        if not n_numbers and not self.texts:
            return Column("empty", numbers, none)
        forms = [self.read_as or "year-month-day"] * self.dates
        if not self.texts:
            return Column("date" if self.dates else "number", numbers, none, forms=forms)
        texts = Texts(self.codes.taken(self.n), [*self.texts, ""])
        self.texts = {}
        is_text = texts.codes >= 0
        if not n_numbers and not self.dates:
            return self._of_texts(texts, is_text, day_first)
        n_texts, examples = int(is_text.sum()), _most_frequent(texts)
        if self.dates or n_texts <= STRAY * (n_numbers + n_texts):
            return Column("date" if self.dates else "number", numbers, is_text, examples, forms)
        return Column("mixed", numbers, is_text, examples, read_as="text" if n_texts > n_numbers else "")

    def _of_texts(self, texts: Texts, is_text: np.ndarray, day_first: bool | None) -> Column:
        """Return a column of dates if nearly all texts are dates in one form, a category if fewer than half are.

        In between it is mixed; if several forms fit equally well and read different dates, it is ambiguous.
        """
        category = Column("category", texts, np.zeros(len(texts), bool))
        if self.read_as == "category":
            return category
        counts = np.bincount(texts.codes[is_text], minlength=len(texts.values))[:MOST_TEXTS]
        values = pa.array(texts.values[: len(counts)], pa.string())
        excluded = {None: "none", True: "month/", False: "day/"}[day_first]
        candidates = [form for form in FORMS if not form.startswith(excluded)]
        readings = {form: days(values, form) for form in candidates}
        wrong = {form: counts[np.isnan(reading)].sum() for form, reading in readings.items()}
        least = min(wrong.values())
        if least > counts.sum() / 2:
            return category
        best, *others = (form for form in candidates if wrong[form] == least)
        for form in others:
            differs = np.flatnonzero(np.abs(readings[form] - readings[best]) > 0)  # where both are dates
            if len(differs):
                return Column("ambiguous", texts, category.other, [texts.values[differs[0]]], [best, form])
        cells = np.append(readings[best], [np.nan] * (len(texts.values) + 1 - len(counts)))[texts.codes]
        other = is_text & np.isnan(cells)
        examples = _most_frequent(Texts(np.where(other, texts.codes, -1), texts.values)) if other.any() else []
        if least > STRAY * counts.sum():
            return Column("mixed", cells, other, examples, [best])
        return Column("date", cells, other, examples, [best], read_as=best if len(texts.values) > MOST_TEXTS else "")


def _most_frequent(texts: Texts) -> list[str]:
    """Return the most frequent texts, a few of them."""
    counts = np.bincount(texts.codes[texts.codes >= 0], minlength=len(texts.values))
    order = np.argsort(-counts, kind="stable")[:SHOWN_TEXTS]
    return [texts.values[code] for code in order if counts[code]]
