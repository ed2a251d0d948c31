"""Open the files of a table: .csv, .tsv, .csv.gz, .tsv.gz, .parquet, or a folder of .parquet files."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from stages.errors import UserError, counted, one_line, printable

DELIMITERS = {".csv": ",", ".tsv": "\t", ".csv.gz": ",", ".tsv.gz": "\t"}
BLOCK_BYTES = 1 << 20  # of CSV that are parsed at a time: no row may be longer than two
BATCH_VALUES = 1 << 18  # of Parquet that are read at a time
ACCOUNTS = {  # of what Arrow says otherwise
    "Empty CSV": "it has no rows",
    "zlib": "it is not compressed by gzip: compress it again",
    "Truncated compressed": "it is not complete: compress it again",
    "Parquet": "it is not a Parquet file, or is damaged: write it again",
    "UTF8": "it is not UTF-8 text: save it as UTF-8",
    "utf-8": "it is not UTF-8 text: save it as UTF-8",
    "\0": "it is not UTF-8 text: save it as UTF-8",
    "straddl": "a row is longer than 1 MiB: look for a quote that is not closed",
}


def files_of(path: str) -> list[str]:
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


def header_of(path: str) -> list[str]:
    """Return the names of a file's columns, as they are written there."""
    if path.endswith(".parquet"):
        return parquet.read_schema(path).names
    with _csv(path) as reader:
        return reader.schema.names


def batches_of(path: str, names: list[str]) -> Iterator[pa.RecordBatch]:
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
    with Path(path).open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if zipped and not path.endswith(".gz"):
        raise UserError(f"{path}: is compressed by gzip: name it {path}.gz")
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
def reading(path: str) -> Iterator[None]:
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
