"""Read a person's own table, in batches of rows.

CSV is UTF-8 text with a header; double quotes enclose a value. Rows are counted from 1, without the header and blank
lines, and through all files of a folder, which are read in the order of their names.
"""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages import cells, files
from stages.cells import Faults, Rounding
from stages.columns import Columns
from stages.errors import UserError, printable
from stages.table_files import batches_of, files_of, header_of, reading

MAX_VALUES = 1000  # of a category
MAX_NAMES = 20  # that a message lists
SEPARATORS = ": the values of a .csv file are separated by commas, those of a .tsv file by tabs"


class Table:
    """A table, whose columns can be read several times; its files are watched for changes from now on.

    Raises UserError, as its methods do, where a file is missing, damaged or of another kind.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with reading(path):
            files.regular(path)
            self.files = files_of(path)
            files.watch(*{path, *self.files})
        with reading(self.files[0]):
            self.names = [name.strip() for name in header_of(self.files[0])]

    def check(self, names: list[str]) -> None:
        """Raise UserError unless the table has exactly one column of each of these names."""
        with reading(self.files[0]):
            _found(self.files[0], names)

    def values(self, names: list[str]) -> dict[str, list[str]]:
        """Return the sorted values of each of these columns, as text.

        Raises UserError if a column has missing values or more than MAX_VALUES different ones.
        """
        found: dict[str, set[str]] = {name: set() for name in names}
        faults = Faults(self.path)
        with reading(self.path):
            for first, batch in self._batches(names) if names else ():
                for name, column in batch.items():
                    text, problems = cells.text(column)
                    faults.add(name, column, problems, first)
                    found[name].update(pc.unique(text).drop_null().to_pylist())
                    if len(found[name]) > MAX_VALUES:
                        many = f"has {len(found[name])} different values or more, and a category can have {MAX_VALUES}"
                        raise UserError(f"{self.path}: column {printable(name)}: {many}")
        faults.check()
        return {name: sorted(values) for name, values in found.items()}

    def rows(self, columns: Columns, *, targets: bool = True, learning: bool = False) -> Iterator[np.ndarray]:
        """Yield the rows, in order: the columns of x and then, if asked for, of y, as float32 (n, width), all finite.

        `learning` refuses columns, too, of which float32 would keep too little to learn from.
        Raises UserError at the end of the table, with all faults of its cells; what follows the first is not yielded.
        """
        names = [*columns.features, *(columns.targets if targets else [])]
        places = {name: place.start for name, place in columns.slices().items()}
        n_feature = len(columns.x_names())
        places |= {name: n_feature + index for index, name in enumerate(names[len(columns.features) :])}
        faults = Faults(self.path)
        roundings = {name: Rounding() for name in names if learning and name not in columns.categories}
        with reading(self.path):
            for first, batch in self._batches(names):
                rows = np.zeros((len(batch[names[0]]), n_feature + len(names) - len(columns.features)), np.float32)
                for name, column in batch.items():
                    if name in columns.categories:
                        codes, problems = cells.codes(column, columns.categories[name])
                        rows[np.arange(len(rows)), places[name] + codes] = 1  # where there is no code, there is a fault
                    else:
                        values, problems = cells.numbers(column)
                        rows[:, places[name]], unfit = cells.narrowed(values)
                        problems = problems | unfit
                    faults.add(name, column, problems, first)
                    if name in roundings and not faults:
                        roundings[name].add(values, rows[:, places[name]])
                if not faults:
                    yield rows
        if not faults:
            lines = {name: rounding.fault() for name, rounding in roundings.items()}
            faults.lines = [f"column {printable(name)}: {line}" for name, line in lines.items() if line]
        faults.check()

    def _batches(self, names: list[str]) -> Iterator[tuple[int, dict[str, pa.Array]]]:
        """Yield, batch by batch, the number of the first row and these columns, n ≥ 1 rows."""
        first = 1
        for path in self.files:
            with reading(path):
                raw = _found(path, names)
                for batch in batches_of(path, list(raw.values())):
                    if len(batch):
                        yield first, {name: batch.column(raw[name]) for name in names}
                        first += len(batch)
        if first == 1:
            raise UserError(f"{self.path}: has no rows")


def _found(path: str, names: list[str]) -> dict[str, str]:
    """Return what the file calls each of these columns. Raises UserError where there is not exactly one of a name."""
    header: dict[str, list[str]] = {}
    for raw in header_of(path):
        header.setdefault(raw.strip(), []).append(raw)
    counts = {name: len(header.get(name, [])) for name in names}
    if missing := [name for name, count in counts.items() if count == 0]:
        unparted = len(header) == 1 and re.search(r"[,;\t|]", next(iter(header)))
        there = f"{_listed(list(header))}{SEPARATORS if unparted else ''}"
        raise UserError(f"{path}: has no column {_listed(missing)}: it has {there}")
    if "" in counts:
        raise UserError(f"{path}: has a column without a name: name it, or list the others in generate.features")
    if several := [name for name, count in counts.items() if count > 1]:
        raise UserError(f"{path}: has more than one column {_listed(several)}: give them different names")
    return {name: header[name][0] for name in names}


def _listed(names: list[str]) -> str:
    return ", ".join(map(printable, names[:MAX_NAMES])) + ", ..." * (len(names) > MAX_NAMES)
