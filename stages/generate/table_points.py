"""Take the points to train on and those to test on from a table."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from stages.columns import Cells, Columns, Feature, Number
from stages.columns.dates import days
from stages.dataset import Dataset
from stages.generate.fitting import add, fit
from stages.generate.own_table import OwnTable, refuse_linked_folders
from stages.generate.split import choose_test_rows, latest_rows
from stages.runtime.errors import UserError, counted, in_rows, printable, short
from stages.tables.gather import Column
from stages.tables.table import Table

NOUNS = {"category": "text", "date": "dates", "empty": "no values", "unreadable": "values of another type"}
Advance = Callable[[int], None]  # is called with how many more rows have been read


def points_of_table(settings: OwnTable, advance: Advance) -> tuple[Dataset, Dataset]:
    """Return the points to train on, with what was decided about the columns, and those to test on.

    Raises UserError with all faults of the table.
    """
    path, targets, categories = settings.path, settings.targets, settings.categories or []
    for place in filter(None, (path, settings.test_path)):
        refuse_linked_folders(place)
    table = Table(path, encoding=settings.encoding, missing=settings.missing_texts, advance=advance)
    table.require([*(settings.features or []), *targets, *categories])
    names = settings.features or [name for name in table.names if name and name not in targets]
    columns = gather(table, [*names, *targets], categories, settings.day_first)
    y = numbers_of(path, columns, targets)
    rows = np.flatnonzero(~np.isnan(y).any(axis=1))
    is_test = choose(settings, rows, columns)
    train, test = rows[~is_test], rows[is_test]

    features, decisions = fit(columns, train, categories)
    if not features:
        reasons = "; ".join(f"{printable(name)} {decision}" for name, decision in decisions.items())
        raise UserError(f"{path}: has no column to predict from: {reasons or 'all of them are targets'}")
    fitted = Columns(
        features=features,
        targets=[Number.fit(name, y[train, index]) for index, name in enumerate(targets)],
        missing=settings.missing_texts,
    )
    if settings.test_path is None:
        unusual = count_unusual(features, {name: column.cells[test] for name, column in columns.items()})
        train_x, test_x = encoded(features, columns, train, test)
        test_y = y[test]
    else:
        (train_x,) = encoded(features, columns, train)
        test_x, test_y, unusual = read_tests(settings, fitted, table.digests(), advance)
    for feature in features:
        if count := unusual[feature.name]:
            add(decisions, feature.name, f"{count} of {counted(len(test_x), 'test row')} {feature.limits()}")
    if len(rows) < len(y):
        add(decisions, targets[0], f"{counted(len(y) - len(rows), 'row')} without a target left out")
    train_points = Dataset(torch.from_numpy(train_x), torch.from_numpy(y[train]), columns=fitted, decisions=decisions)
    return train_points, Dataset(torch.from_numpy(test_x), torch.from_numpy(test_y), columns=fitted)


def numbers_of(path: str, columns: dict[str, Column], targets: Sequence[str]) -> np.ndarray:
    """Return y, float32 (n, n_output), nan where a target is missing; remove the targets from the columns.

    Raises UserError if a target is no number.
    """
    values = {name: columns.pop(name) for name in targets}
    lines = [
        f"{path}: column {printable(name)}: must be numbers to be a target, got {NOUNS[column.kind]}"
        for name, column in values.items()
        if column.kind != "number"
    ]
    if lines:
        raise UserError("\n".join(lines))
    return np.stack([np.asarray(column.cells) for column in values.values()], axis=1)


def count_unusual(features: Sequence[Feature], cells: Mapping[str, Cells]) -> Counter[str]:
    """Return how many cells of each feature, by name, are unlike those of the training rows."""
    return Counter({feature.name: int(feature.unlike_training(cells[feature.name]).sum()) for feature in features})


def read_tests(
    settings: OwnTable, columns: Columns, trained: set[str], advance: Advance
) -> tuple[np.ndarray, np.ndarray, Counter[str]]:
    """Return x, (n, n_feature), and y, (n, n_output), of generate.test_path, and how many cells are unusual, by column.

    Raises UserError if its files are among those trained on, by digest, or if it has numbers that no column can hold.
    """
    path = settings.test_path
    assert path is not None
    table = Table(path, encoding=settings.encoding, missing=settings.missing_texts, advance=advance)
    if table.digests() <= trained:
        rule = f"generate.test_path must be another table than generate.path, {settings.path}"
        raise UserError(f"{path}: {rule}: both hold the same rows")
    xs, ys, unusual, unusable = [], [], Counter[str](), list[int]()
    for first, readings in table.batches(columns, targets=True):
        y = np.stack([np.asarray(readings[name].cells) for name in columns.target_names], axis=1)
        rows = np.flatnonzero(~np.isnan(y).any(axis=1))
        cells = {name: reading.cells[rows] for name, reading in readings.items()}
        xs.append(columns.encode(cells))
        ys.append(y[rows])
        unusual.update(count_unusual(columns.features, cells))
        faulty = np.any([reading.unusable for reading in readings.values()], axis=0)
        unusable += (first + np.flatnonzero(faulty)).tolist()
    if unusable:
        which = (
            f"{counted(len(unusable), 'row')} with numbers that float32 cannot hold, {in_rows(len(unusable), unusable)}"
        )
        raise UserError(f"{path}: {which}: remove such rows")
    if not sum(map(len, ys)):
        raise UserError(f"{path}: has no rows with a target")
    return np.concatenate(xs), np.concatenate(ys), unusual


def encoded(features: Sequence[Feature], columns: dict[str, Column], *parts: np.ndarray) -> list[np.ndarray]:
    """Return x, float32 (k, n_feature), for each part, row numbers (k,); remove the columns, to free their memory."""
    width = sum(feature.width for feature in features)
    x = [np.empty((len(rows), width), np.float32) for rows in parts]
    start = 0
    for feature in features:
        cells = columns.pop(feature.name).cells
        for part, rows in zip(x, parts, strict=True):
            part[:, start : start + feature.width] = feature.encode(cells[rows])
        start += feature.width
    return x


def gather(table: Table, names: Sequence[str], categories: Sequence[str], day_first: bool | None) -> dict[str, Column]:
    """Return these columns, each of the kind that its cells tell. Raises UserError with the faults of all of them."""
    columns = table.gather(names, categories, day_first)
    text = [name for name, column in columns.items() if column.kind == "mixed" and column.other.mean() > 0.5]
    if text:  # with some numbers among it
        columns |= table.gather(text, text)
    faults = {name: _fault_of(column) for name, column in columns.items()}
    if any(faults.values()):
        lines = (f"{table.path}: column {printable(name)}: {fault}" for name, fault in faults.items() if fault)
        raise UserError("\n".join(lines))
    return columns


def _fault_of(column: Column) -> str:
    """Return why a column is of no kind, and what to do; nothing if it is."""
    if column.kind == "ambiguous":
        text = pa.array([column.example])
        readings = [np.datetime64(int(days(text, form)[0]), "D") for form in column.forms]
        return (
            f"{short(column.example)} may be {' or '.join(map(str, readings))}: set generate.day_first to true or false"
        )
    if column.kind != "mixed":
        return ""
    rows = np.flatnonzero(column.other) + 1
    return (
        f"{len(rows)} of {counted(len(column.other), 'value')} are no numbers, such as {short(column.example)}, "
        f"{in_rows(len(rows), rows[:3].tolist())}: list them in generate.missing if they mean a missing value, or the "
        "column in generate.categories"
    )


def choose(settings: OwnTable, rows: np.ndarray, columns: dict[str, Column]) -> np.ndarray:
    """Return which of these rows, int (k,), to test on, bool (k,); none if there is a table of its own for that."""
    if settings.test_fraction is None:
        return np.zeros(len(rows), bool)
    if not settings.test_latest:
        assert settings.seed is not None  # as the schema demands
        return choose_test_rows(settings.path, len(rows), settings.test_fraction, settings.seed)
    dates = [column.cells for column in columns.values() if column.kind == "date"]
    if not dates:
        raise UserError(f"{settings.path}: has no column of dates, by which generate.test_latest chooses rows")
    return latest_rows(settings.path, np.asarray(dates[0])[rows], settings.test_fraction)
