"""Predict with a saved network from any table that has its features: `python -m stages.predict MODEL TABLE [-o FILE]`.

MODEL is a net.pkl or a net_params.pkl, TABLE any table that `generate` could read, of any length. The predictions are
written as CSV, with a column for each target, in the table's order. The kernels are the portable ones, so what is
predicted does not depend on the machine.
"""

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from stages.runtime import files
from stages.runtime.errors import UserError
from stages.runtime.run import PORTABLE, main


def lines(model: str, table: str) -> Iterator[bytes]:
    """Yield the predictions of a model for the rows of a table as CSV: the header, then many lines at a time.

    Raises UserError if either file cannot be read, the table does not fit the model, or a prediction is not finite.
    """
    os.environ.update(PORTABLE)
    import pyarrow as pa
    import torch
    from pyarrow import csv as arrow_csv

    from stages import models, network
    from stages.runtime.chunks import rows_at_a_time
    from stages.tables.table import Table

    net, source, first = models.load(model), Table(table), 1
    source.require(net.names.features)
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(net.names.targets)
    yield header.getvalue().encode()
    without_header = arrow_csv.WriteOptions(include_header=False)
    neurons = sum(
        len(values) for values in net.parameters() if values.ndim
    )  # at least; a point has as many values on its way
    for rows in source.rows(net.names, targets=False):
        for x in torch.from_numpy(rows).split(rows_at_a_time(rows.shape[1] + neurons)):
            y = network.predict(net, x)
            if not y.isfinite().all():
                row = first + int(y.isfinite().all(dim=1).int().argmin())
                raise UserError(
                    f"{table}: row {row} has values so far from those trained on that none can be predicted"
                )
            first += len(x)
            buffer = pa.BufferOutputStream()
            arrow_csv.write_csv(pa.table(list(y.T.numpy()), net.names.targets), buffer, without_header)
            yield buffer.getvalue()
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
    arguments = parser.parse_args()
    predicted = lines(arguments.model, arguments.table)
    if not arguments.output:
        stream(predicted, sys.stdout.fileno(), "standard output")
        return
    output = Path(os.path.realpath(arguments.output))
    for read in (arguments.model, arguments.table):
        if output == Path(os.path.realpath(read)):
            raise UserError(f"{arguments.output}: must be another file than {read}, which it would replace")
    if output.parent == Path(os.path.realpath(arguments.table)):
        raise UserError(f"{arguments.output}: must not be in {arguments.table}, the folder that is read")
    write(predicted, arguments.output)


if __name__ == "__main__":
    main(run)
