"""Take the points to train on and those to test on from a table."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from stages.columns import Columns, Date, Feature, Number
from stages.dataset import Dataset
from stages.generate.fitting import Decisions, fit
from stages.generate.own_table import OwnTable
from stages.generate.split import choose_test_rows, latest_rows
from stages.runtime.errors import UserError, counted, in_rows, printable, short
from stages.tables.gather import Column
from stages.tables.table import Table

FEW_TESTS = 30  # test rows; with fewer, the metrics are rough


def points_of_table(settings: OwnTable, advance: Callable[[int], None]) -> tuple[Dataset, Dataset]:
    """Return the points to train on, with what was decided about the columns, and the points to test on.

    `advance` is called with how many more rows have been read. Raises UserError with all faults of the table.
    """
    table = Table(settings.path, encoding=settings.encoding, missing=settings.missing_texts, advance=advance)
    targets, categories = settings.targets, settings.categories or []
    table.require([*(settings.features or []), *targets, *categories])
    names = settings.features or [name for name in table.names if name and name not in targets]
    columns = gather(table, [*names, *targets], categories, settings.day_first)
    y = targets_of(settings.path, columns, targets)  # (n, n_output)
    rows = np.flatnonzero(~np.isnan(y).any(axis=1))
    train = rows
    if settings.test_fraction is not None:
        is_test = choose(settings, rows, columns)
        train, test = rows[~is_test], rows[is_test]
    features, decisions = fit({name: columns[name] for name in names}, train, categories)
    if not features:
        reasons = "; ".join(f"{printable(name)} {decision}" for name, decision in decisions.items())
        raise UserError(f"{settings.path}: has no column to predict from: {reasons or 'all of them are targets'}")
    fitted = Columns(
        features=features,
        targets=[Number.fit(name, y[train, index]) for index, name in enumerate(targets)],
        missing=settings.missing_texts,
    )
    ...


def gather(table: Table, names: Sequence[str], categories: Sequence[str], day_first: bool | None) -> dict[str, Column]:
    """Return these columns, each of the kind that its cells tell. Raises UserError with the faults of all of them."""
    columns = table.gather(names, categories)
    text = [name for name, column in columns.items() if column.kind == "mixed" and column.other.mean() > 0.5]
    if text:  # with some numbers among it
        columns |= table.gather(text, text)
    lines = []
    for name, column in columns.items():
        where = f"{table.path}: column {printable(name)}"
        if column.kind == "mixed":
            rows = np.flatnonzero(column.other) + 1
            lines.append(
                f"{where}: {len(rows)} of {counted(len(column.cells), 'value')} are no numbers, such as "
                f"{short(column.example)}, {in_rows(len(rows), rows[:3].tolist())}: list those that mean a missing value "
                "in generate.missing, or the column in generate.categories"
            )
        ...
    if lines:
        raise UserError("\n".join(lines))
    return columns
