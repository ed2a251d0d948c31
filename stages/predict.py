"""Predict with a saved network from any table that has its features: `python -m stages.predict MODEL TABLE [-o FILE]`.

MODEL is a net.pkl or a net_params.pkl, TABLE any table that `generate` could read, of any length. The predictions are
written as CSV, with a column for each target, in the table's order. The kernels are the portable ones, so what is
predicted does not depend on the machine.
"""

import argparse
import csv
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stages.runtime import files
from stages.runtime.errors import UserError, counted, in_rows, printable
from stages.runtime.run import PORTABLE, main

if TYPE_CHECKING:
    from stages.columns import Columns, Reading


class Remarks:
    """What to say about the rows of a table, counted as they are predicted."""

    def __init__(self) -> None:
        self.unpredicted: list[int] = []  # the numbers of the rows
        self.cells: Counter[tuple[str, str]] = Counter()  # by column, and by what they are

    def add(self, columns: "Columns", readings: "Mapping[str, Reading]") -> None:
        """Count the cells that are unlike those of the training rows."""
        for feature in columns.features:
            cells, other, _ = readings[feature.name]
            self.cells[feature.name, f"no {feature.kind}, taken as missing"] += int(other.sum())
            self.cells[feature.name, feature.limits()] += int(feature.unlike_training(cells).sum())

    def lines(self) -> Iterator[str]:
        """Yield a line for each kind of cell, and for the rows that were not predicted."""
        for (name, what), count in self.cells.items():
            if count:
                yield f"column {printable(name)}: {counted(count, 'value')} {what}"
        if n := len(self.unpredicted):
            yield f"{counted(n, 'row')} without a prediction, {in_rows(n, self.unpredicted)}"


def lines(model: str, table: str, encoding: str | None, remarks: Remarks) -> Iterator[bytes]:
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
    source = Table(table, encoding=encoding, missing=columns.missing)
    source.require(columns.feature_names)
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(columns.target_names)
    yield header.getvalue().encode()
    options = arrow_csv.WriteOptions(include_header=False)
    for first, readings in source.batches(columns, targets=False):
        y = net.predict_cells(readings)
        remarks.add(columns, readings)
        remarks.unpredicted += (first + np.flatnonzero(np.isnan(y[:, 0]))).tolist()
        buffer = pa.BufferOutputStream()
        values = [pa.array(values, from_pandas=True) for values in y.T]
        arrow_csv.write_csv(pa.table(values, columns.target_names), buffer, options)
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
    """Write to what is there already, given by its path or descriptor, until its reader, such as `head`, wants no more.

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
    parser.add_argument("--encoding", help="of a CSV file that is not in UTF-8, such as cp1252")
    parser.add_argument("--allow-gaps", action="store_true", help="exit with 0 even if rows cannot be predicted")
    arguments = parser.parse_args()
    remarks = Remarks()
    predicted = lines(arguments.model, arguments.table, arguments.encoding, remarks)
    if arguments.output:
        write_to(arguments.output, predicted, arguments.model, arguments.table)
    else:
        stream(predicted, sys.stdout.fileno(), "standard output")
    for line in remarks.lines():
        print(f"{arguments.table}: {line}", file=sys.stderr)
    if remarks.unpredicted and not arguments.allow_gaps:
        sys.exit(1)


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
