"""How the network learned, as files: snapshots of its predictions (.npz) and the losses of every epoch (.csv)."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.columns import Columns, unnamed
from stages.runtime import archive, files
from stages.runtime.errors import UserError

LOSSES = ("loss", "validation_loss", "learning_rate")  # the columns of loss.csv after epoch; all but the first optional
NPY_HEADER_BYTES = 128  # of an array with up to three dimensions


class Snapshots(NamedTuple):
    """What the network predicted as it learned, at k epochs, for m of the training points."""

    epochs: np.ndarray  # int64 (k,): epochs trained before each snapshot
    losses: np.ndarray  # float64 (k,): mean loss over all training points
    x: np.ndarray  # float32 (m, n_feature)
    y: np.ndarray  # float32 (m, n_output)
    predictions: np.ndarray  # float32 (k, m, n_output)
    columns: Columns | None = None  # of x and y, if they have names


def write_snapshots(path: str, snapshots: Snapshots) -> None:
    """Write the snapshots as an uncompressed npz, the same bytes every time and under every Python.

    Raises UserError if they are not finite, before anything is written.
    """
    arrays = snapshots._asdict()
    columns = arrays.pop("columns")
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {name} must be finite, got nan or inf: lower train.learning_rate")
    if columns:
        arrays["columns"] = np.frombuffer(columns.model_dump_json().encode(), np.uint8)
    with files.writing(path) as file, zipfile.ZipFile(file, "w") as records:
        for name, values in arrays.items():
            record = zipfile.ZipInfo(f"{name}.npy")
            record.create_system = 3  # Unix, on Windows too
            # np.savez always asks for the headers of large records; how zipfile writes them for small ones depends on
            # the Python.
            large = values.nbytes + NPY_HEADER_BYTES > zipfile.ZIP64_LIMIT
            with records.open(record, "w", force_zip64=large) as stream:
                np.lib.format.write_array(stream, values, allow_pickle=False)


def read_snapshots(path: str) -> Snapshots:
    """Return the snapshots. Raises UserError if the file is missing, damaged or has other shapes or dtypes."""
    with files.reading(path, "a history of this project"), Path(path).open("rb") as file:
        with archive.opened(file) as records:
            expected = [f"{name}.npy" for name in Snapshots._fields]
            if records.namelist() not in (expected, expected[:-1]):
                raise ValueError
        file.seek(0)
        with np.load(file, allow_pickle=False) as loaded:
            *arrays, columns = (loaded.get(name) for name in Snapshots._fields)
        snapshots = Snapshots(*arrays)
        if columns is not None:
            snapshots = snapshots._replace(columns=Columns.model_validate_json(columns.tobytes()))
        k, m, n_output = snapshots.predictions.shape
        n_feature = snapshots.x.shape[1]
        names = snapshots.columns or unnamed(n_feature, n_output)
        if (
            [array.shape for array in arrays] != [(k,), (k,), (m, n_feature), (m, n_output), (k, m, n_output)]
            or [array.dtype.str for array in arrays] != ["<i8", "<f8", "<f4", "<f4", "<f4"]
            or (len(names.x_names()), len(names.targets)) != (n_feature, n_output)
            or any(array.size == 0 or not np.isfinite(array).all() for array in arrays)
            or snapshots.epochs[0] != 0
            or (np.diff(snapshots.epochs) <= 0).any()
        ):
            raise ValueError
    return snapshots


def write_losses(path: str, losses: Mapping[str, Sequence[float]]) -> None:
    """Write what is known of every epoch as a CSV table: the column epoch and those of LOSSES that are given."""
    with files.writing(path) as file:
        file.writelines(_table(losses))


def read_losses(path: str) -> dict[str, np.ndarray]:
    """Return the columns after epoch, each float64 (epochs,). Raises UserError if the file is missing or damaged."""
    with files.reading(path, "a table of epoch and loss"):
        content = Path(path).read_bytes()
        header, *rows = content.decode().splitlines()
        names = header.split(",")[1:]
        if "loss" not in names or [name for name in LOSSES if name in names] != names:
            raise ValueError
        table = np.array([[float(value) for value in row.split(",")[1:]] for row in rows])
        losses = dict(zip(names, table.T, strict=True))
        if not (table.size and np.isfinite(table).all() and b"".join(_table(losses)) == content):
            raise ValueError
    return losses


def _table(losses: Mapping[str, Sequence[float]]) -> Iterator[bytes]:
    yield f"{','.join(['epoch', *losses])}\n".encode()
    for epoch, values in enumerate(zip(*losses.values(), strict=True)):
        yield f"{epoch},{','.join(f'{value:.9g}' for value in values)}\n".encode()
