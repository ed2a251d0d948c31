"""Read a person's own table, in batches: .csv, .tsv, .csv.gz, .tsv.gz, .parquet, or a folder of .parquet files.

CSV is UTF-8 text with a header; double quotes enclose a value. Rows are counted from 1, without the header and blank
lines, and through all files of a folder, which are read in the order of their names.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from stages import cells, files
from stages.cells import Faults, Rounding
from stages.columns import Columns
from stages.errors import UserError, counted, one_line, printable

DELIMITERS = {".csv": ",", ".tsv": "\t", ".csv.gz": ",", ".tsv.gz": "\t"}
BLOCK_BYTES = 1 << 20  # of CSV that are parsed at a time: no row may be longer than two
BATCH_VALUES = 1 << 18  # of Parquet that are read at a time
MAX_VALUES = 1000  # of a category
MAX_NAMES = 20  # that a message lists
SEPARATORS = ": the values of a .csv file are separated by commas, those of a .tsv file by tabs"
ACCOUNTS = {  # of what Arrow says otherwise
    "Empty CSV": "it is empty",
    "UTF8": "it is not UTF-8 text: save it as UTF-8",
    "utf-8": "it is not UTF-8 text: save it as UTF-8",
    "\0": "it is not UTF-8 text: save it as UTF-8",
    "straddl": "a row is longer than 1 MiB: look for a quote that is not closed",
}


class Table:
    """A table, whose columns can be read several times; its files are watched for changes from now on.

    Raises UserError, as its methods do, where a file is missing, damaged or of another kind.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with _reading(path):
            files.regular(path)
            self.files = _files(path)
            files.watch(*{path, *self.files})
        with _reading(self.files[0]):
            self.names = [name.strip() for name in _header(self.files[0])]

    def check(self, names: list[str]) -> None:
        """Raise UserError unless the table has exactly one column of each of these names."""
        with _reading(self.files[0]):
            _found(self.files[0], names)

    def values(self, names: list[str]) -> dict[str, list[str]]:
        """Return the sorted values of each of these columns, as text.

        Raises UserError if a column has missing values or more than MAX_VALUES different ones.
        """
        found: dict[str, set[str]] = {name: set() for name in names}
        faults = Faults(self.path)
        with _reading(self.path):
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
        with _reading(self.path):
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
            with _reading(path):
                raw = _found(path, names)
                for batch in _opened(path, list(raw.values())):
                    if len(batch):
                        yield first, {name: batch.column(raw[name]) for name in names}
                        first += len(batch)
        if first == 1:
            raise UserError(f"{self.path}: has no rows")


def _files(path: str) -> list[str]:
    """Return what a table is made of: itself, or the files of a folder. Raises UserError where that is no table."""
    if not Path(path).is_dir():
        if not path.endswith((*DELIMITERS, ".parquet")):
            kinds = f"{', '.join(DELIMITERS)} or .parquet file, or a folder of .parquet files"
            raise UserError(f"{path}: must be a {kinds}")
        return [path]
    names = sorted(each.name for each in Path(path).iterdir() if not each.name.startswith((".", "_")))
    if others := [name for name in names if not name.endswith(".parquet")]:
        raise UserError(f"{path}: must hold .parquet files alone, got {printable(others[0])}")
    if not names:
        raise UserError(f"{path}: must hold .parquet files, got none")
    return [f"{path.rstrip('/')}/{name}" for name in names]


def _found(path: str, names: list[str]) -> dict[str, str]:
    """Return what the file calls each of these columns. Raises UserError where there is not exactly one of a name."""
    header: dict[str, list[str]] = {}
    for raw in _header(path):
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


def _header(path: str) -> list[str]:
    if path.endswith(".parquet"):
        return parquet.read_schema(path).names
    with _csv(path) as reader:
        return reader.schema.names


def _opened(path: str, names: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield these columns of a file in batches: as text if the file is CSV, else as whatever they are."""
    if path.endswith(".parquet"):
        # Without pre_buffer, a row group is read in pieces, however large it is.
        with parquet.ParquetFile(
            path, pre_buffer=False, buffer_size=BLOCK_BYTES, page_checksum_verification=True
        ) as file:
            yield from file.iter_batches(1 + BATCH_VALUES // len(names), columns=names)
    else:
        with _csv(path, names) as reader:
            yield from reader


@contextmanager
def _csv(path: str, names: list[str] | None = None) -> Iterator[csv.CSVStreamingReader]:
    """Yield a reader of a file's columns, as text; without names of all, as Arrow sees them.

    Raises UserError if a row is longer or shorter than the header.
    """
    delimiter = next(delimiter for suffix, delimiter in DELIMITERS.items() if path.endswith(suffix))
    try:
        with pa.input_stream(path, compression="gzip" if path.endswith(".gz") else None) as stream:
            yield csv.open_csv(
                stream,
                csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),  # threads would not number the rows
                csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
                csv.ConvertOptions(
                    include_columns=names,
                    column_types=dict.fromkeys(names or [], pa.string()),
                ),
            )
    except pa.ArrowInvalid as error:
        ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(error))
        if not ragged or "\0" in str(error):
            raise
        row, names_wanted, values = map(int, ragged.groups())  # the header is row 1
        count = f"{counted(values, 'value')}, and the header has {counted(names_wanted, 'name')}"
        raise UserError(f"{path}: row {row - 1} has {count}: correct the row") from error


@contextmanager
def _reading(path: str) -> Iterator[None]:
    """Turn whatever goes wrong as the block reads a table into a UserError. MemoryError passes through."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing: put the table there, or run `dvc pull` if DVC tracks it") from error
    except (OSError, UnicodeError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        accounts = [account for words, account in ACCOUNTS.items() if words in str(reason)]
        raise UserError(f"{path}: cannot be read: {printable(*accounts[:1] or [one_line(reason)])}") from error
