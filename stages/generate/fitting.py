"""Fit the encoder of a table to its training rows, and say in words what was decided about each column."""

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from stages.columns import Category, Cells, Date, Feature, Number, Target, Texts
from stages.columns.category import FREQUENT, MOST_LEVELS
from stages.runtime.errors import UserError, counted, printable, short

if TYPE_CHECKING:  # pyarrow, which this imports, takes a moment to load, and the curve does not need it
    from stages.tables.gather import Column

INDEX_NAME = re.compile(r"(?i)|x1?|unnamed: ?\d+|__index_level_\d+__|index|id|obs|row_?(names?|numbers?|id)?")
FEW = 12  # different whole numbers in a target, at most, that may as well be the numbers of classes
RARE_CLASS = 10  # training rows: a class with fewer is pointed out
SHOWN_CLASSES = 5
REPEATED = 0.5  # the share of the training rows that must have a level, or a column of text is no category


class Decisions(dict[str, str]):
    """What was decided about a column, by its name."""

    def add(self, name: str, *words: str) -> None:
        """Add to what was decided about a column; empty words are left out."""
        if any(words):
            self[name] = "; ".join(filter(None, [self.get(name), *words]))


def fit(
    columns: Mapping[str, "Column"], train: np.ndarray, *, listed: Collection[str], decisions: Decisions
) -> list[Feature]:
    """Return the features, fitted to the training rows, and add what was decided about each column.

    train: the numbers of the training rows, int (n,). Columns that carry no information are left out; those that the
    user has listed, only if they have no values that can be used.
    """
    features = []
    for name, column in columns.items():
        feature = _fitted(name, column, train, listed=name in listed)
        if isinstance(feature, str):
            decisions.add(name, f"left out: {feature}")
        else:
            features.append(feature)
            decisions.add(name, feature.decision(), column.strays())
    return features


def fit_target(path: str, name: str, cells: Cells, decisions: Decisions) -> Target:
    """Return the target with these training rows, and add what was decided about it.

    Raises UserError unless there are at least two classes, if it is a category, and at most MOST_LEVELS.
    """
    if isinstance(cells, np.ndarray):
        different = np.unique(cells)
        if len(different) == 2 or (len(different) <= FEW and (different == different.round()).all()):
            some = f"{len(different)} different {'numbers' if len(different) == 2 else 'whole numbers'}"
            decisions.add(name, f"{some}, predicted as amounts: list it in generate.categories to predict classes")
        return Number.fit(name, cells)
    target = Category.of_classes(name, cells)
    n = len(target.levels)
    if not 1 < n <= MOST_LEVELS:
        rule = f"must have 2 to {MOST_LEVELS} different values in the training rows to be classes, got {n}"
        raise UserError(f"{path}: {printable(name)} {rule}: choose another generate.target")
    decisions.add(name, f"{n} classes", _rare_classes(target, cells))
    return target


def _rare_classes(target: Category, cells: Texts) -> str:
    """Return which classes have so few training rows that they can hardly be learnt; nothing if none has."""
    counts = dict(zip(target.levels, target.encode(cells).sum(axis=0).astype(int).tolist(), strict=True))
    rare = {level: count for level, count in counts.items() if count < RARE_CLASS}
    if not rare:
        return ""
    shown = [
        f"{short(level)} ({count})" for level, count in sorted(rare.items(), key=lambda item: item[1])[:SHOWN_CLASSES]
    ]
    more = ", …" if len(rare) > SHOWN_CLASSES else ""
    return f"{len(rare)} of them in fewer than {RARE_CLASS} training rows: {', '.join(shown)}{more}"


def _fitted(name: str, column: "Column", train: np.ndarray, *, listed: bool) -> Feature | str:
    """Return the feature with these training rows, or why there is none."""
    if column.kind == "unreadable":
        return f"values of type {column.examples[0]}"
    cells = column.cells[train]
    if isinstance(cells, Texts):
        return _fitted_category(name, cells, listed=listed)
    known = cells[~np.isnan(cells)]
    if not len(known):
        return "no values in the training rows"
    if not listed and known.min() == known.max() and len(known) == len(cells):
        return "the same value in all training rows"
    if column.kind == "date":
        return Date.fit(name, cells, column.forms[0])
    if not listed and INDEX_NAME.fullmatch(name) and _counts_rows(cells, train):
        return "the number of the row"
    return Number.fit(name, cells)


def _fitted_category(name: str, cells: Texts, *, listed: bool) -> Feature | str:
    category = Category.fit(name, cells)
    different = len(np.unique(cells.codes[cells.codes >= 0]))
    if different == 0:
        return "no values in the training rows"
    texts = f"{counted(different, 'text')} in {counted(len(cells), 'training row')}"
    if not category:
        return f"{texts}, none of them in {FREQUENT}"
    if not listed and category.encode(cells)[:, : len(category.levels)].sum() < REPEATED * len(cells):
        return f"{texts}: list it in generate.categories to use the frequent ones"
    return category if listed or category.width > 1 else "the same value in all training rows"


def _counts_rows(cells: Cells, rows: np.ndarray) -> bool:
    """Return whether the cells of these rows are their numbers, which begin with 0 or with 1."""
    offset = np.asarray(cells) - rows.astype(np.float32)
    return offset[0] in (0, 1) and bool((offset == offset[0]).all())
