"""Take the points to train on and those to test on from a table."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from stages.columns import Cells, Columns, Feature, Texts
from stages.dataset import Dataset
from stages.generate.fitting import Decisions, fit, fit_target
from stages.generate.own_table import OwnTable, refuse_linked_folders
from stages.generate.split import choose_test_rows, latest_rows
from stages.runtime.errors import UserError, counted, in_rows, printable
from stages.tables.gather import Column
from stages.tables.table import Table

BLOCK_ROWS = 1 << 20  # encoded at a time
Advance = Callable[[int], None]  # is called with how many more rows have been read


class Tests(NamedTuple):
    """The points to test on, and what is unusual about their cells."""

    x: np.ndarray  # float32 (n, n_feature)
    y: np.ndarray  # float32 (n, n_output)
    unusual: Counter[tuple[str, str]]  # numbers of rows, by column and by what is unusual
    digest: str  # of the table and the numbers of the rows
    without_target: int = 0  # rows that were left out


def points_of_table(settings: OwnTable, advance: Advance) -> tuple[Dataset, Dataset]:
    """Return the points to train on, with what was decided about the columns, and those to test on.

    Raises UserError with all faults of the table.
    """
    path, targets, categories = settings.path, settings.targets, settings.categories or []
    for place in filter(None, (path, settings.test_path)):
        refuse_linked_folders(place)
    table = _opened(settings, path, advance)
    table.require([*(settings.features or []), *targets, *categories])
    decisions = Decisions()
    names = settings.features or _possible_features(table, targets, decisions)
    columns = table.gather(names, targets, categories=categories, day_first=settings.day_first)

    strays = {name: columns[name].strays() for name in targets}
    truths = {name: columns.pop(name).cells for name in targets}
    dates = next((name for name, column in columns.items() if column.kind == "date"), None)
    train, test = _split(truths, settings, columns[dates] if dates else None)

    features = fit(columns, train, listed=[*(settings.features or []), *categories], decisions=decisions)
    if not features:
        reasons = "; ".join(f"{printable(name)} {decision}" for name, decision in decisions.items())
        raise UserError(
            f"{path}: has no column to predict from: {reasons or 'all of them are targets'}: add columns of numbers, "
            "dates or texts that repeat"
        )
    fitted = Columns(
        features=features,
        targets=[fit_target(path, name, cells[train], decisions) for name, cells in truths.items()],
        missing=settings.missing_texts,
    )
    train_y, test_y = (
        fitted.encode_targets({name: cells[rows] for name, cells in truths.items()}) for rows in (train, test)
    )
    if settings.test_path is None:
        unusual = _count_unlike(features, {name: column.cells[test] for name, column in columns.items()})
        train_x, test_x = _encoded(features, columns, train, test)
        tests = Tests(test_x, test_y, unusual, digest_of(table, test))
    else:
        (train_x,) = _encoded(features, columns, train)
        tests = _read_tests(_opened(settings, settings.test_path, advance), fitted, table)
    if dates and settings.test_path is None:
        latest = "the latest" if settings.test_latest else "drawn from all dates; generate.test_latest takes the latest"
        decisions.add(dates, f"the test rows are {latest}")
    for name in targets:
        decisions.add(name, strays[name])
    rows = len(truths[targets[0]])
    _add_rows(decisions, targets[0], rows - len(train) - len(test), tests)
    if fitted.classes:
        new = int((tests.y.sum(axis=1) == 0).sum())
        decisions.add(targets[0], f"{counted(new, 'test row')} of a class that no training row has" if new else "")
    return (
        Dataset(torch.from_numpy(train_x), torch.from_numpy(train_y), columns=fitted, decisions=dict(decisions)),
        Dataset(torch.from_numpy(tests.x), torch.from_numpy(tests.y), columns=fitted, digest=tests.digest),
    )


def digest_of(table: Table, rows: np.ndarray) -> str:
    """Return a digest of the bytes of the table's files and of which of its rows these are, numbers, int (n,).

    It does not depend on the columns: two trainings on different features have the same one if they have the same rows.
    """
    hashed = hashlib.blake2b("".join(sorted(table.digests())).encode(), digest_size=16)
    hashed.update(np.asarray(rows, "<i8").tobytes())
    return hashed.hexdigest()


def _add_rows(decisions: Decisions, target: str, without_target: int, tests: Tests) -> None:
    """Add how many rows were left out, since they have no target, and what is unusual about the test rows."""
    for (name, words), count in tests.unusual.items():
        decisions.add(name, f"{count} of {counted(len(tests.x), 'test row')} {words}" if count else "")
    for count, noun in ((without_target, "row"), (tests.without_target, "test row")):
        decisions.add(target, f"{counted(count, noun)} without a target left out" if count else "")


def _opened(settings: OwnTable, path: str, advance: Advance) -> Table:
    return Table(path, encoding=settings.encoding, missing=settings.missing_texts, advance=advance)


def _possible_features(table: Table, targets: Sequence[str], decisions: Decisions) -> list[str]:
    """Return the names of all columns but the targets; those without a name, or with the same one, are left out."""
    counts = Counter(name for name in table.names if name not in targets)
    if unnamed := counts.pop("", 0):
        decisions.add("columns without a name", f"left out: {unnamed}")
    for name, count in counts.items():
        if count > 1:
            decisions.add(name, f"left out: {count} columns have this name")
    return [name for name, count in counts.items() if count == 1]


def _split(targets: Mapping[str, Cells], settings: OwnTable, dates: Column | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows with all targets: those to train on, and those to test on."""
    rows = _with_all(targets)
    if settings.test_fraction is None:  # there is a table of its own to test on
        return rows, rows[:0]
    if settings.test_latest:
        if dates is None:
            raise UserError(f"{settings.path}: has no dates among the features, which generate.test_latest needs")
        is_test = latest_rows(settings.path, np.asarray(dates.cells)[rows], settings.test_fraction)
    else:
        assert settings.seed is not None  # as the schema demands
        (cells, *_) = targets.values()
        classes = cells.codes[rows] if isinstance(cells, Texts) else None
        is_test = choose_test_rows(settings.path, len(rows), settings.test_fraction, settings.seed, classes)
    return rows[~is_test], rows[is_test]


def _with_all(targets: Mapping[str, Cells]) -> np.ndarray:
    """Return the numbers of the rows in which no target is missing."""
    missing = [cells.codes < 0 if isinstance(cells, Texts) else np.isnan(cells) for cells in targets.values()]
    return np.flatnonzero(~np.any(missing, axis=0))


def _count_unlike(features: Sequence[Feature], cells: Mapping[str, Cells]) -> Counter[tuple[str, str]]:
    """Return how many cells of each feature are unlike those of the training rows."""
    return Counter(
        {
            (feature.name, f"with a value {feature.limits()}"): int(feature.unlike_training(cells[feature.name]).sum())
            for feature in features
        }
    )


def _read_tests(table: Table, columns: Columns, trained_on: Table) -> Tests:
    """Return the points of generate.test_path.

    Raises UserError if its files are among those trained on, or if it has numbers that float32 cannot hold.
    """
    if table.digests() <= trained_on.digests():
        rule = f"generate.test_path must be another table than generate.path, {trained_on.path}"
        raise UserError(f"{table.path}: {rule}: both hold the same rows")
    xs, ys, numbers, unusual, n = [], [], [], Counter[tuple[str, str]](), 0
    unusable: dict[str, list[int]] = {}  # the numbers of rows, by column
    for first, readings in table.batches(columns, targets=True):
        rows = _with_all({name: readings[name].cells for name in columns.target_names})
        cells = {name: reading.cells[rows] for name, reading in readings.items()}
        xs.append(columns.encode(cells))
        ys.append(columns.encode_targets(cells))
        numbers.append(first - 1 + rows)
        unusual.update(_count_unlike(columns.features, cells))
        n += len(readings[columns.target_names[0]].cells)
        for feature in columns.features:
            other = readings[feature.name].other[rows]
            unusual[feature.name, f"with a value not a {feature.kind}, taken as missing"] += int(other.sum())
        for name, reading in readings.items():
            unusable.setdefault(name, []).extend((first + np.flatnonzero(reading.unusable)).tolist())
    lines = [
        f"{table.path}: column {printable(name)}: {counted(len(numbers), 'value')} that float32 cannot hold, "
        f"{in_rows(len(numbers), numbers)}: remove such rows"
        for name, numbers in unusable.items()
        if numbers
    ]
    if lines:
        raise UserError("\n".join(lines))
    x, y = np.concatenate(xs), np.concatenate(ys)
    if not len(y):
        raise UserError(f"{table.path}: has no rows with a target: fill it in")
    return Tests(x, y, unusual, digest_of(table, np.concatenate(numbers)), n - len(y))


def _encoded(features: Sequence[Feature], columns: dict[str, Column], *parts: np.ndarray) -> list[np.ndarray]:
    """Return x, float32 (k, n_feature), for each part, row numbers (k,); remove the columns, to free their memory."""
    x = [np.empty((len(rows), sum(feature.width for feature in features)), np.float32) for rows in parts]
    start = 0
    for feature in features:
        cells = columns.pop(feature.name).cells
        for part, rows in zip(x, parts, strict=True):
            for block in range(0, len(rows), BLOCK_ROWS):
                some = slice(block, block + BLOCK_ROWS)
                part[some, start : start + feature.width] = feature.encode(cells[rows[some]])
        start += feature.width
    return x
