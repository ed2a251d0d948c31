"""Fit the encoder of a table to its training rows, and say in words what was decided about each column."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stages.columns import Category, Cells, Date, Feature, Number, Texts
from stages.runtime.errors import counted, in_rows, short

if TYPE_CHECKING:  # pyarrow, which this imports, takes a moment to load, and the curve does not need it
    from stages.tables.gather import Column

INDEX_NAME = re.compile(r"(?i)|x1?|unnamed: ?\d+|__index_level_\d+__|index|id|obs|row_?(names?|numbers?|id)?")
REPEATED = 0.5  # the share of the training rows that must have a level, or a column of text is no category

Decisions = dict[str, str]  # what was decided about a column, by its name


def fit(columns: Mapping[str, "Column"], train: np.ndarray, categories: list[str]) -> tuple[list[Feature], Decisions]:
    """Return the features, fitted to the training rows, and what was decided about each column.

    train: the numbers of the training rows, int (n,). Columns that tell nothing are left out, unless they are listed in
    `categories`.
    """
    features, decisions = [], {}
    for name, column in columns.items():
        feature = _fitted(name, column, column.cells[train], name in categories)
        if isinstance(feature, str):
            decisions[name] = f"left out: {feature}"
            continue
        features.append(feature)
        words = [feature.decision(), _of_another_kind(column, feature)]
        if any(words):
            decisions[name] = "; ".join(filter(None, words))
    return features, decisions


def _fitted(name: str, column: "Column", cells: Cells, listed: bool) -> Feature | str:
    """Return the feature with these training cells, or why there is none."""
    if column.kind == "unreadable":
        return f"values of type {column.example}"
    if isinstance(cells, Texts):
        return _fitted_category(name, cells, listed)
    known = cells[~np.isnan(cells)]
    if not len(known):
        return "no values in the training rows"
    if known.min() == known.max() and len(known) == len(cells):
        return "the same value in all training rows"
    if column.kind == "date":
        return Date.fit(name, cells, column.forms[0])
    if INDEX_NAME.fullmatch(name) and _counts_rows(column.cells):
        return "the number of the row"
    return Number.fit(name, cells)


def _fitted_category(name: str, cells: Texts, listed: bool) -> Feature | str:
    different = len(np.unique(cells.codes[cells.codes >= 0]))
    if different == 0:
        return "no values in the training rows"
    category = Category.fit(name, cells)
    if not category or (not listed and category.encode(cells)[:, : len(category.levels)].sum() < REPEATED * len(cells)):
        return f"{counted(different, 'text')} in {counted(len(cells), 'training row')}"
    return category if category.width > 1 else "the same value in all training rows"


def _counts_rows(cells: Cells) -> bool:
    """Return whether the cells are 0, 1, 2, … or 1, 2, 3, …."""
    numbers = np.asarray(cells)
    return numbers[0] in (0, 1) and bool((np.diff(numbers) == 1).all())


def _of_another_kind(column: "Column", feature: Feature) -> str:
    rows = np.flatnonzero(column.other) + 1
    if not len(rows):
        return ""
    values, where = counted(len(rows), "value"), in_rows(len(rows), rows[:3].tolist())
    noun = "dates" if isinstance(feature, Date) else "numbers"
    return f"{values} that are no {noun}, such as {short(column.example)}, {where}, count as missing"


def add(decisions: Decisions, name: str, words: str) -> None:
    """Add to what was decided about a column."""
    decisions[name] = f"{decisions[name]}; {words}" if name in decisions else words
