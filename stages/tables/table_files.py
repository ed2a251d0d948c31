"""Open the files of a table: .csv, .tsv, .csv.gz, .tsv.gz, .parquet, or a folder of .parquet files."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
from pyarrow import csv, parquet

from stages.runtime.errors import UserError, counted, one_line, printable
from stages.tables.dialect import Dialect, dialect_of
from stages.tables.records import Records

TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
BLOCK_BYTES = 1 << 20  # of CSV, parsed at a time; a row may span two blocks at most
BATCH_VALUES = 1 << 18  # of Parquet, read at a time
NOT_UTF8 = (
    "it is not UTF-8 text: save it as UTF-8, or set its encoding, e.g. cp1252, as generate.encoding or --encoding"
)
EXPLANATIONS = {  # to show instead of messages from Arrow that contain these words
    "Empty CSV": "it has no rows",
    "zlib": "it is not compressed by gzip: compress it again",
    "Truncated compressed": "it is incomplete: compress it again",
    "Parquet": "it is not a Parquet file, or is damaged: write it again",
    "UTF8": NOT_UTF8,
    "'utf-8' codec": NOT_UTF8,
    "codec can't decode": "it is not text in this encoding: set the right one as generate.encoding or --encoding",
    "\0": NOT_UTF8,
}


def files_of(path: str) -> list[str]:
    """Return the files of a table: the path itself, or all files in that folder. Raises UserError if it is no table."""
    if not Path(path).is_dir():
        if not path.endswith((*TEXT, ".parquet")):
            kinds = f"{', '.join(TEXT)} or .parquet file, or a folder of .parquet files"
            raise UserError(f"{path}: must be a {kinds}")
        return [path]
    names = sorted(file.name for file in Path(path).iterdir() if not file.name.startswith((".", "_")))
    if others := [name for name in names if not name.endswith(".parquet")]:
        raise UserError(f"{path}: must contain only .parquet files, got {printable(others[0])}")
    if not names:
        raise UserError(f"{path}: must contain .parquet files, got none")
    return [f"{path.rstrip('/')}/{name}" for name in names]


class File:
    """A file of a table, which can be read repeatedly. Raises UserError as `dialect_of` does."""

    def __init__(self, path: str, encoding: str | None) -> None:
        self.path = path
        self.dialect = None if path.endswith(".parquet") else dialect_of(path, encoding)
        if not self.dialect:
            self.header = parquet.read_schema(path).names
            return
        with _csv(path, self.dialect) as (reader, _):
            self.header = reader.schema.names  # as they are written

    @property
    def decimal(self) -> str:
        """The decimal mark."""
        return self.dialect.decimal if self.dialect else "."

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Yield these columns in batches: as text if the file is CSV, with the file's own types if Parquet.

        Raises UserError at the end unless the batches have all rows of the file.
        """
        rows = 0
        if self.dialect:
            with _csv(self.path, self.dialect, names) as (reader, records):
                for batch in reader:
                    rows += len(batch)
                    yield batch
                expected = records.count - 1  # without the header
        else:
            # Without pre_buffer, a row group is read in pieces, however large it is.
            with parquet.ParquetFile(
                self.path, pre_buffer=False, buffer_size=BLOCK_BYTES, page_checksum_verification=True
            ) as file:
                for batch in file.iter_batches(1 + BATCH_VALUES // len(names), columns=names):
                    rows += len(batch)
                    yield batch
                expected = file.metadata.num_rows
        if rows != expected:
            had = f"has {counted(expected, 'row')}, but {rows} were read"
            raise UserError(f"{self.path}: cannot be read: {had}: save it again")


class _ScannedStream:
    """A stream of bytes that `records` is fed with as Arrow reads them."""

    closed = False

    def __init__(self, stream: pa.NativeFile, records: Records) -> None:
        self.stream, self.records = stream, records

    def readable(self) -> bool:
        return True

    def read(self, size: int) -> bytes:
        piece = self.stream.read(size)
        self.records.feed(piece)
        return piece

    def close(self) -> None:
        self.closed = True


@contextmanager
def _csv(
    path: str, dialect: Dialect, names: list[str] | None = None
) -> Iterator[tuple[csv.CSVStreamingReader, Records]]:
    """Yield a reader of a file, and the records among the bytes that it has read.

    It reads these columns, as text; without names, all columns, with types that Arrow infers.
    Raises UserError if a row is longer or shorter than the header, and as `Records.feed` does.
    """
    records = Records(path, dialect.separator, BLOCK_BYTES)
    try:
        with pa.input_stream(path, compression="gzip" if path.endswith(".gz") else None) as stream:
            if not dialect.encoding.startswith("utf-8"):
                stream = pa.transcoding_input_stream(stream, dialect.encoding, "utf-8")
            reader = csv.open_csv(
                _ScannedStream(stream, records),
                csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),  # threads would not number the rows
                csv.ParseOptions(delimiter=dialect.separator, newlines_in_values=True),
                csv.ConvertOptions(
                    include_columns=names,
                    column_types=dict.fromkeys(names or [], pa.string()),
                ),
            )
            yield reader, records
    except pa.ArrowInvalid as error:
        ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(error))
        if not ragged or "\0" in str(error):
            raise
        row, names_in_header, values = map(int, ragged.groups())  # the header is row 1
        count = f"{counted(values, 'value')}, but the header has {counted(names_in_header, 'name')}"
        raise UserError(f"{path}: row {row - 1} has {count}: fix the row") from error


@contextmanager
def user_errors(path: str) -> Iterator[None]:
    """Turn whatever goes wrong as the block reads a table into a UserError. MemoryError passes through."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing: put the table there, or run `dvc pull` if DVC tracks it") from error
    except (OSError, UnicodeError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        explanations = (text for words, text in EXPLANATIONS.items() if words in str(reason))
        why = next(explanations, one_line(reason))
        raise UserError(f"{path}: cannot be read: {printable(why)}") from error
