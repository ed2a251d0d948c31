"""Predict with a saved network from any table that has its features: `python -m stages.predict MODEL TABLE [-o FILE]`.

MODEL is a net.pkl or a net_params.pkl, TABLE any table that `generate` could read, of any length. The predictions are
written as CSV, with a column for each target, in the table's order; with --interval 0.9 followed by the ends of an
interval that held 90 % of the held-out errors; of a category, by the probability of each class. A row that cannot be
predicted has empty values and makes the exit status 1. Stderr says what is unusual in the table. The kernels are the
portable ones, so what is predicted does not depend on the machine.
"""

import argparse
import csv
import io
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stages.runtime import files
from stages.runtime.errors import SHOWN_ROWS, UserError, counted, in_rows, printable, short
from stages.runtime.run import PORTABLE, main

if TYPE_CHECKING:
    import numpy as np

    from stages.columns import Feature, Reading

UNPREDICTED = "without a prediction"


class Remarks:
    """What to say about the cells and rows of a table: how many are unusual, and in which rows the first are."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()  # by column, "" for whole rows, and by what is unusual
        self.first_rows: dict[tuple[str, str], list[int]] = {}

    def add(self, column: str, what: str, rows: "np.ndarray") -> None:
        """Count the rows with these numbers, int (k,)."""
        if len(rows):
            self.counts[column, what] += len(rows)
            shown = self.first_rows.setdefault((column, what), [])
            shown += rows[: SHOWN_ROWS - len(shown)].tolist()

    def add_cells(self, feature: "Feature", reading: "Reading", first: int) -> None:
        """Count the cells that are unlike those of the training rows; `first` is the number of the first row."""
        missing = reading.missing & ~reading.other & ~reading.unusable
        unlike = feature.unlike_training(reading.cells)
        for what, cells in (
            (f"not {feature.expected()}, taken as missing", reading.other),
            ("missing, unlike in the training rows", missing & (feature.gaps == 0)),
            ("that float32 cannot hold", reading.unusable),
            (feature.limits() if unlike.any() else "", unlike),
        ):
            self.add(feature.name, what, first + cells.nonzero()[0])

    def lines(self) -> Iterator[str]:
        """Yield a line for each column and what is unusual in it."""
        for (column, what), count in self.counts.items():
            subject = f"column {printable(column)}: {counted(count, 'value')}" if column else counted(count, "row")
            yield f"{subject} {what}, {in_rows(count, self.first_rows[column, what])}"


def lines(model: str, table: str, encoding: str | None, interval: float | None, remarks: Remarks) -> Iterator[bytes]:
    """Yield the predictions of a model for the rows of a table as CSV: the header, then many lines at a time.

    A row that cannot be predicted has empty values. Raises UserError if either file cannot be read, or the table does
    not fit the model.
    """
    os.environ.update(PORTABLE)  # before any of what follows loads
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    from stages import models
    from stages.tables.table import Table

    net = models.load(model)
    columns = net.names
    try:
        header = [*net.columns_of(np.empty((0, len(columns.y_names())), np.float32), interval)]
    except ValueError as error:
        raise UserError(f"--interval: {error}") from error
    source = Table(table, encoding=encoding, missing=columns.missing)
    source.require(columns.feature_names)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(header)
    yield text.getvalue().encode()
    options = arrow_csv.WriteOptions(include_header=False)
    for first, readings in source.batches(columns, targets=False):
        y = net.predict_cells(readings)
        for feature in columns.features:
            remarks.add_cells(feature, readings[feature.name], first)
        remarks.add("", UNPREDICTED, first + np.flatnonzero(np.isnan(y[:, 0])))
        buffer = pa.BufferOutputStream()
        values = [pa.array(values, from_pandas=True) for values in net.columns_of(y, interval).values()]
        arrow_csv.write_csv(pa.table(values, header), buffer, options)
        # Readers skip an empty line, so what is missing in a single column is in quotes.
        yield re.sub(rb"(?m)^\n", b'""\n', buffer.getvalue().to_pybytes())
    if changed := files.changed():
        raise UserError("\n".join(f"{path}: changed while it was read: predict again" for path in changed))


def write(predicted: Iterator[bytes], path: str) -> None:
    """Write to a file, whole or not at all; to a pipe or a device as soon as something is predicted.

    A link stays: what is written is the file that it points to. Raises UserError if the system refuses.
    """
    target = os.path.realpath(path) if Path(path).is_symlink() else path
    if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        stream(predicted, path, path)
        return
    if target != path and Path(target).exists() and not Path(target).stat().st_mode & 0o222:
        raise UserError(f"{path}: links to {target}, which is read-only, as in DVC's cache: delete the link")
    with files.writing(target, then="predict again") as file:
        file.writelines(predicted)


def stream(predicted: Iterator[bytes], target: str | int, name: str) -> None:
    """Write to an open descriptor, or to the pipe or device at a path, until its reader closes it, as `head` does.

    Raises UserError, with this name, if the system refuses.
    """
    try:
        with io.BufferedWriter(io.FileIO(target, "w", closefd=isinstance(target, str))) as file:
            for some in predicted:
                file.write(some)
                file.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        raise UserError(f"{name}: cannot be written: {error.strerror}") from error


def run() -> None:
    """Read the command line, predict, and write to the file or to standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict", description="Predict from a table with a saved network."
    )
    parser.add_argument("model", metavar="MODEL", help="a net.pkl or net_params.pkl")
    parser.add_argument("table", metavar="TABLE", help="a table with the columns that the network was trained on")
    parser.add_argument("-o", metavar="FILE", dest="output", help="where to write the predictions (default: stdout)")
    parser.add_argument("--encoding", type=known_encoding, help="of a CSV file that is not in UTF-8, such as cp1252")
    parser.add_argument(
        "--interval", type=level, metavar="LEVEL", help="add columns with the ends of intervals, such as 0.9"
    )
    parser.add_argument("--allow-gaps", action="store_true", help="exit with 0 even if rows cannot be predicted")
    arguments = parser.parse_args()
    remarks = Remarks()
    predicted = lines(arguments.model, arguments.table, arguments.encoding, arguments.interval, remarks)
    if arguments.output:
        write_to(arguments.output, predicted, arguments.model, arguments.table)
    else:
        stream(predicted, sys.stdout.fileno(), "standard output")
    for line in remarks.lines():
        print(f"{arguments.table}: {line}", file=sys.stderr)
    if remarks.counts["", UNPREDICTED] and not arguments.allow_gaps:
        sys.exit(1)


def known_encoding(name: str) -> str:
    """Return the name. Raises UserError unless Python knows this encoding of text."""
    try:
        "".encode(name)
    except LookupError as error:
        rule = "must be an encoding that Python knows, such as cp1252"
        raise UserError(f"--encoding: {rule}, got {short(name)}") from error
    return name


def level(text: str) -> float:
    """Return the number in the text. Raises UserError unless it is above 0 and below 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise UserError(f"--interval: must be a number above 0 and below 1, got {short(text)}")
    return number


def write_to(path: str, predicted: Iterator[bytes], *sources: str) -> None:
    """Write to a file that is none of those that are read. Raises UserError if it is, or as `write` does."""
    output = Path(os.path.realpath(path))
    for source in sources:
        if output == Path(os.path.realpath(source)):
            raise UserError(f"{path}: must be another file than {source}, which it would replace")
        if output.parent == Path(os.path.realpath(source)):
            raise UserError(f"{path}: must not be in {source}, the folder that is read")
    write(predicted, path)


if __name__ == "__main__":
    main(run)
