"""Read a table in batches of rows.

CSV is UTF-8 text with a header; double quotes enclose a value. Rows are counted from 1, without the header and blank
lines, and through all files of a folder, which are read in the order of their names.
"""

import re
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.columns import Columns
from stages.runtime import files
from stages.runtime.errors import UserError, printable
from stages.tables import cells
from stages.tables.cells import Faults, Rounding
from stages.tables.names import normal_name
from stages.tables.table_files import batches_of, files_of, header_of, user_errors

MAX_VALUES = 1000  # of a category
MAX_NAMES = 20  # that a message lists
SEPARATORS = " (separate values by commas in a .csv file, by tabs in a .tsv file)"


class Table:
    """A table whose columns can be read repeatedly; its files are watched for changes from now on.

    As `rows` reads them, `advance` is called with how many more rows have been read.
    Like its methods, raises UserError if a file is missing, damaged or of another kind.
    """

    def __init__(self, path: str, advance: Callable[[int], None] | None = None) -> None:
        self.path, self.advance = path, advance
        with user_errors(path):
            self.files = files_of(path)
            files.watch(path)
        for file in self.files:
            with user_errors(file):
                files.watch(file)
        with user_errors(self.files[0]):
            self.names = [normal_name(name) for name in header_of(self.files[0])]

    def require(self, names: list[str]) -> None:
        """Raise UserError unless the table has exactly one column of each of these names."""
        with user_errors(self.files[0]):
            _columns_named(self.files[0], names)

    def digests(self) -> set[str]:
        """Return the digests of the table's files."""
        return set(map(files.digest_when_read, self.files))

    def values(self, names: list[str]) -> dict[str, list[str]]:
        """Return the sorted different values of each of these columns, as text.

        Raises UserError if a column has missing values or more than MAX_VALUES different ones.
        """
        if not names:
            return {}
        values: dict[str, set[str]] = {name: set() for name in names}
        faults = Faults(self.path)
        with user_errors(self.path):
            for first, batch in self._batches(names):
                for name, column in batch.items():
                    text, problems = cells.text(column)
                    faults.add(name, column, problems, first)
                    values[name].update(pc.unique(text).drop_null().to_pylist())
                    if len(values[name]) > MAX_VALUES:
                        many = f"has more than {MAX_VALUES} different values, too many for a category"
                        raise UserError(f"{self.path}: column {printable(name)}: {many}")
        faults.raise_any()
        return {name: sorted(different) for name, different in values.items()}

    def rows(self, columns: Columns, *, targets: bool = True, check_rounding: bool = False) -> Iterator[np.ndarray]:
        """Yield the rows in batches: the columns of x and, with `targets`, of y, as float32 (n, width), all finite.

        `check_rounding` also refuses columns that float32 rounds too coarsely to learn from.
        Raises UserError at the end of the table, with all faults in its cells; no batch is yielded after the first
        fault.
        """
        y_names = columns.targets if targets else []
        names = [*columns.features, *y_names]
        n_feature = len(columns.x_names())
        starts = {name: place.start for name, place in columns.slices().items()}  # the first column of each name
        starts |= {name: n_feature + index for index, name in enumerate(y_names)}
        faults = Faults(self.path)
        roundings = {name: Rounding() for name in names if check_rounding and name not in columns.categories}
        with user_errors(self.path):
            for first, batch in self._batches(names):
                rows = np.zeros((len(batch[names[0]]), n_feature + len(y_names)), np.float32)
                for name, column in batch.items():
                    start = starts[name]
                    if name in columns.categories:
                        codes, problems = cells.codes(column, columns.categories[name])
                        rows[np.arange(len(rows)), start + codes] = 1  # wrong where the code is -1, which is a fault
                    else:
                        values, problems = cells.numbers(column)
                        rows[:, start], out_of_range = cells.narrowed(values)
                        problems = problems | out_of_range
                    faults.add(name, column, problems, first)
                    if name in roundings and not faults:
                        roundings[name].add(values, rows[:, start])
                if self.advance:
                    self.advance(len(rows))
                if not faults:
                    yield rows
        if not faults:
            coarse = {name: rounding.fault() for name, rounding in roundings.items()}
            faults.lines = [f"column {printable(name)}: {fault}" for name, fault in coarse.items() if fault]
        faults.raise_any()

    def _batches(self, names: list[str]) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """Yield batches of at least one row: the number of the first row, and these columns by name."""
        first = 1
        for path in self.files:
            with user_errors(path):
                written = _columns_named(path, names)
                for batch in batches_of(path, list(written.values())):
                    if len(batch):
                        yield first, {name: batch.column(written[name]) for name in names}
                        first += len(batch)
        if first == 1:
            raise UserError(f"{self.path}: has no rows")


def _columns_named(path: str, names: list[str]) -> dict[str, str]:
    """Return these names as they are written in the file: perhaps with space around them, or in decomposed Unicode.

    Raises UserError unless the file has exactly one column of each name.
    """
    header: dict[str, list[str]] = {}
    for written in header_of(path):
        header.setdefault(normal_name(written), []).append(written)
    counts = {name: len(header.get(normal_name(name), [])) for name in names}
    if missing := [name for name, count in counts.items() if count == 0]:
        wrong_separator = len(header) == 1 and re.search(r"[,;\t|]", next(iter(header)))
        columns = f"{_listed(list(header))}{SEPARATORS if wrong_separator else ''}"
        raise UserError(f"{path}: has no column {_listed(missing)}: it has {columns}")
    if "" in counts:
        raise UserError(f"{path}: has a column without a name: name it, or list the others in generate.features")
    if several := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"{path}: has more than one column {_listed(several)}: give them different names")
    return {name: header[normal_name(name)][0] for name in names}


def _listed(names: list[str]) -> str:
    return ", ".join(map(printable, names[:MAX_NAMES])) + ", ..." * (len(names) > MAX_NAMES)
