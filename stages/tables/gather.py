"""Gather the cells of a column, a batch at a time, and tell by all of them what kind of column it is."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from stages.columns import Cells, Texts
from stages.columns.cells import Notation, Problems, days_of, narrowed, parsed, readable, text_of
from stages.columns.dates import FORMS, days
from stages.tables.rounding import Rounding

STRAY = 0.05  # the share of cells that may be of another kind than the rest; they count as missing
MOST_TEXTS = 1 << 20  # different ones that are kept of a column


class Column(NamedTuple):
    """The cells of a column, and what kind of column they make."""

    kind: Literal["number", "category", "date", "ambiguous", "mixed", "empty", "unreadable"]
    cells: Cells
    other: np.ndarray  # which cells are of another kind than the rest, bool (n,), and missing in `cells`
    example: str = ""  # one of those; of ambiguous dates, one of them; of an unreadable column, the type of its cells
    forms: Sequence[str] = ()  # of dates: how they are written, one of FORMS; two if that is ambiguous


class Gathering:
    """The cells of a column so far."""

    def __init__(self, *, as_text: bool) -> None:
        self.as_text = as_text
        self.numbers: list[np.ndarray] = []  # of each batch, float32 (k,), nan where there is none; float64 for dates
        self.codes: list[np.ndarray] = []  # of each batch, int32 (k,): the index in `texts`, -1 where there is none
        self.texts: dict[str, int] = {}
        self.rounding = Rounding()
        self.dates = False  # whether the cells have a type for dates
        self.unreadable = ""  # the type of the cells if it is not for numbers, texts or dates

    def add(self, batch: pa.Array, notation: Notation) -> Problems:
        """Add a batch, (k,), and return its problems."""
        if not readable(batch.type):
            self.unreadable = str(batch.type)
            batch = pa.nulls(len(batch), pa.string())
        no_texts = pa.nulls(len(batch), pa.string())
        numbers, texts, problems = np.full(len(batch), np.nan, np.float32), no_texts, Problems()
        if self.as_text:
            texts = text_of(batch, notation)
        elif pa.types.is_temporal(batch.type):
            self.dates, numbers = True, days_of(batch)
        else:
            values, texts = parsed(batch, notation)
            numbers, problems = narrowed(values)
            self.rounding.add(values, numbers)
        self.numbers.append(numbers)
        self.codes.append(self._coded(texts))
        return problems

    def _coded(self, texts: pa.Array) -> np.ndarray:
        different = texts.dictionary_encode()
        values = different.dictionary.to_pylist()
        for value in values[: MOST_TEXTS - len(self.texts)]:
            self.texts.setdefault(value, len(self.texts))
        codes = np.array([*(self.texts.get(value, 0) for value in values), -1], np.int32)
        return codes[different.indices.fill_null(-1).to_numpy(zero_copy_only=False)]

    def column(self, day_first: bool | None) -> Column:
        """Return the column, and forget what was gathered.

        day_first: whether 1/2/2020 is in February; None if that is to be told by the other dates of the column.
        """
        numbers, texts = np.concatenate(self.numbers), Texts(np.concatenate(self.codes), list(self.texts))
        self.numbers, self.codes, self.texts = [], [], {}
        is_number, is_text = ~np.isnan(numbers), texts.codes >= 0
        if self.unreadable:
            return Column("unreadable", numbers, is_text, self.unreadable)
        if self.dates:
            return Column("date", numbers, is_text, forms=["year-month-day"])
        if is_text.any() and not is_number.any():
            return self._of_texts(texts, day_first)
        if not is_number.any():
            return Column("empty", numbers, is_text)
        few = is_text.sum() <= STRAY * (is_number.sum() + is_text.sum())
        example = texts.values[texts.codes[is_text.argmax()]] if is_text.any() else ""
        return Column("number" if few else "mixed", numbers, is_text, example)

    def _of_texts(self, texts: Texts, day_first: bool | None) -> Column:
        """Return a column of dates if nearly all cells are, in one form at least, else a category."""
        none = np.zeros(len(texts), bool)
        if self.as_text:
            return Column("category", texts, none)
        is_text = texts.codes >= 0
        counts = np.bincount(texts.codes[is_text], minlength=len(texts.values))
        values = pa.array(texts.values, pa.string())
        excluded = {None: "none", True: "month/", False: "day/"}[day_first]
        candidates = [form for form in FORMS if not form.startswith(excluded)]
        readings = {form: days(values, form) for form in candidates}
        wrong = {form: counts[np.isnan(reading)].sum() for form, reading in readings.items()}
        least = min(wrong.values())
        if least > STRAY * counts.sum():
            return Column("category", texts, none)
        best, *others = (form for form in candidates if wrong[form] == least)
        moments = np.append(readings[best], np.nan)[texts.codes]
        for form in others:
            differs = np.flatnonzero(readings[form] != readings[best])  # nan, of either, included
            if len(differs):
                return Column("ambiguous", moments, none, texts.values[differs[0]], [best, form])
        other = is_text & np.isnan(moments)
        example = texts.values[texts.codes[other.argmax()]] if other.any() else ""
        return Column("date", moments, other, example, [best])
