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
    from stages.runtime.errors import UserError
    from stages.tables.table import Table

    net, source, first = models.load(model), Table(table), 1
    source.check(net.names.features)
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


def run() -> None:
    """Read the command line, predict, and write to the file, whole or not at all, or to standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict", description="Predict from a table with a saved network."
    )
    parser.add_argument("model", metavar="MODEL", help="a net.pkl or net_params.pkl")
    parser.add_argument("table", metavar="TABLE", help="a table with the columns that the network was trained on")
    parser.add_argument("-o", metavar="FILE", dest="output", help="where to write the predictions (default: stdout)")
    arguments = parser.parse_args()
    from stages.runtime import files
    from stages.runtime.errors import UserError

    predicted = lines(arguments.model, arguments.table)
    if arguments.output:
        for read in (arguments.model, arguments.table):
            if os.path.realpath(arguments.output) == os.path.realpath(read):
                raise UserError(f"{arguments.output}: must be another file than {read}, which it would replace")
        with files.writing(arguments.output) as file:
            file.writelines(predicted)
        return
    for some in predicted:
        try:
            sys.stdout.buffer.write(some)
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more as it exits
            if isinstance(error, BrokenPipeError):  # the reader, such as `head`, wants no more
                return
            raise UserError(f"standard output: cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    main(run)
