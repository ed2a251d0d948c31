"""Read a table of any length, a batch of rows at a time.

Rows are counted from 1, without the header and blank lines, and through all files of a folder, which are read in the
order of their names.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from stages.columns import Columns, Notation, Reading
from stages.columns.names import normal_name
from stages.runtime import files
from stages.runtime.errors import UserError, printable
from stages.tables.faults import Faults
from stages.tables.gather import Column, Gathering
from stages.tables.table_files import File, files_of, user_errors

MAX_NAMES = 20  # that a message lists
NUMBER_LIKE = re.compile(r"[+-]?[0-9]+\.[0-9]+|[+-][0-9]+")  # hardly the name of a column


class Table:
    """A table whose columns can be read repeatedly; its files are watched for changes from now on.

    As it is read, `advance` is called with how many more rows have been read.
    Like its methods, raises UserError if a file is missing, damaged or of another kind.
    """

    def __init__(
        self,
        path: str,
        *,
        encoding: str | None = None,
        missing: Sequence[str] = (),
        advance: Callable[[int], None] | None = None,
    ) -> None:
        self.path, self.missing, self.advance = path, missing, advance
        with user_errors(path):
            paths = files_of(path)
            files.watch(path)
        for file in paths:
            with user_errors(file):
                files.watch(file)
        with user_errors(paths[0]):
            self.files = [File(file, encoding) for file in paths]
            self.names = [normal_name(name) for name in self.files[0].header]

    def require(self, names: Sequence[str]) -> None:
        """Raise UserError unless the table has exactly one column of each of these names."""
        _columns_named(self.files[0], names)

    def digests(self) -> set[str]:
        """Return the digests of the table's files."""
        return {files.digest_when_read(file.path) for file in self.files}

    def gather(
        self,
        features: Sequence[str],
        targets: Sequence[str],
        *,
        categories: Sequence[str] = (),
        day_first: bool | None = None,
    ) -> dict[str, Column]:
        """Return these columns, by name: categories if listed in `categories`, else of the kind that their cells show.

        The few columns that turn out to be of another kind than their first rows are read again.
        day_first: see `Gathering.column`.
        Raises UserError at the end of the table with the faults of all columns.
        """
        faults = Faults(self.path)
        columns = self._gather([*features, *targets], dict.fromkeys(categories, "category"), day_first, faults)
        again = {name: column.read_as for name, column in columns.items() if column.read_as}
        if again:
            columns |= self._gather([*again], again, day_first, faults)
        for name, column in columns.items():
            faults.add_line(name, column.fault(is_target=name in targets, alone=len(targets) == 1))
        faults.raise_any()
        return columns

    def _gather(
        self, names: Sequence[str], read_as: Mapping[str, str], day_first: bool | None, faults: Faults
    ) -> dict[str, Column]:
        gathering = {name: Gathering(read_as.get(name, "")) for name in names}
        for first, batch, notation in self._batches(names):
            for name, column in batch.items():
                faults.add(name, column, gathering[name].add(column, notation), first)
        self.advance = None  # all rows have been counted
        for name, column in gathering.items():
            faults.add_line(name, column.rounding.fault())
        return {name: gathering.pop(name).column(day_first) for name in names}

    def batches(self, columns: Columns, *, targets: bool) -> Iterator[tuple[int, dict[str, Reading]]]:
        """Yield the rows in batches: the number of the first one, and what was read of these columns, by name.

        The targets are read only if asked for.
        """
        names = [*columns.feature_names, *columns.target_names * targets]
        for first, batch, notation in self._batches(names):
            yield first, columns.read(batch, notation)

    def _batches(self, names: Sequence[str]) -> Iterator[tuple[int, dict[str, pa.Array], Notation]]:
        """Yield batches of at least one row: the number of the first row, these columns by name, and their notation."""
        first = 1
        for file in self.files:
            with user_errors(file.path):
                written = _columns_named(file, names)
                notation = Notation(file.decimal, self.missing)
                for batch in file.batches(list(written.values())):
                    if len(batch):
                        yield first, {name: batch.column(written[name]) for name in names}, notation
                        first += len(batch)
                        if self.advance:
                            self.advance(len(batch))
        if first == 1:
            raise UserError(f"{self.path}: has no rows")


def _columns_named(file: File, names: Sequence[str]) -> dict[str, str]:
    """Return these names as they are written in the file: perhaps with space around them, or in decomposed Unicode.

    Raises UserError unless the file has exactly one column of each name.
    """
    header: dict[str, list[str]] = {}
    for written in file.header:
        header.setdefault(normal_name(written), []).append(written)
    counts = {name: len(header.get(normal_name(name), [])) for name in names}
    if missing := [name for name, count in counts.items() if count == 0]:
        looks_like_data = any(map(NUMBER_LIKE.fullmatch, header)) or all(map(str.isdecimal, header))
        advice = ": its first row looks like data: write a line of column names above it" if looks_like_data else ""
        raise UserError(f"{file.path}: has no column {_listed(missing)}: it has {_listed(list(header))}{advice}")
    if several := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"{file.path}: has more than one column {_listed(several)}: give them different names")
    return {name: header[normal_name(name)][0] for name in names}


def _listed(names: list[str]) -> str:
    return ", ".join(map(printable, names[:MAX_NAMES])) + ", ..." * (len(names) > MAX_NAMES)
