"""How the network learned, as files: snapshots of its predictions (.npz) and the losses of every epoch (.csv)."""

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages.columns import Columns, unnamed
from stages.runtime import archive, files
from stages.runtime.errors import UserError

LOSSES = (
    "loss",
    "loss_std",
    "validation_loss",
    "validation_loss_std",
    "learning_rate",
)  # the columns of loss.csv after epoch; all but the first optional
OPTIONAL = ("networks", "half_widths", "columns")  # arrays of the npz
INTERVAL = 0.9  # the share of held-out errors that are within the half-width of an interval
NPY_HEADER_BYTES = 128  # of an array with up to three dimensions


class Snapshots(NamedTuple):
    """What the network predicted as it learned, at k epochs, for m of the training points."""

    epochs: np.ndarray  # int64 (k,): epochs trained before each snapshot
    losses: np.ndarray  # float64 (k,): mean loss over all training points
    x: np.ndarray  # float32 (m, n_feature)
    y: np.ndarray  # float32 (m, n_output)
    predictions: np.ndarray  # float32 (k, m, n_output); of several networks the mean
    networks: np.ndarray | None = None  # float32 (k, networks, m, n_output): what each of several predicted
    half_widths: np.ndarray | None = None  # float32 (n_output,), of intervals at INTERVAL around the last predictions
    columns: Columns | None = None  # of x and y, if they have names


def write_snapshots(path: str, snapshots: Snapshots) -> None:
    """Write the snapshots as an uncompressed npz, the same bytes every time and under every Python.

    Raises UserError if they are not finite, before anything is written.
    """
    arrays = {name: values for name, values in snapshots._asdict().items() if values is not None}
    columns = arrays.pop("columns", None)
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
            stored = [name.removesuffix(".npy") for name in records.namelist()]
            if stored != [name for name in Snapshots._fields if name in stored or name not in OPTIONAL]:
                raise ValueError
        file.seek(0)
        with np.load(file, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in stored}
        columns = arrays.pop("columns", None)
        snapshots = Snapshots(**arrays)
        if columns is not None:
            snapshots = snapshots._replace(columns=Columns.model_validate_json(columns.tobytes()))
        k, m, n_output = snapshots.predictions.shape
        n_feature = snapshots.x.shape[1]
        networks = 0 if snapshots.networks is None else snapshots.networks.shape[1]
        names = snapshots.columns or unnamed(n_feature, n_output)
        expected = {
            "epochs": ("<i8", (k,)),
            "losses": ("<f8", (k,)),
            "x": ("<f4", (m, n_feature)),
            "y": ("<f4", (m, n_output)),
            "predictions": ("<f4", (k, m, n_output)),
            "networks": ("<f4", (k, networks, m, n_output)),
            "half_widths": ("<f4", (n_output,)),
        }
        if (
            any((array.dtype.str, array.shape) != expected[name] for name, array in arrays.items())
            or (len(names.x_names()), len(names.y_names())) != (n_feature, n_output)
            or any(array.size == 0 or not np.isfinite(array).all() for array in arrays.values())
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
