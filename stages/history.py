"""How the network learned, as files: snapshots of its predictions (.npz) and the loss of every epoch (.csv)."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages import archive, files
from stages.errors import UserError


class Snapshots(NamedTuple):
    """What the network predicted as it learned, at k epochs, for m of the training points."""

    epochs: np.ndarray  # int64 (k,): epochs trained before each snapshot
    losses: np.ndarray  # float64 (k,): mean loss over all training points
    x: np.ndarray  # float32 (m, n_feature)
    y: np.ndarray  # float32 (m, n_output)
    predictions: np.ndarray  # float32 (k, m, n_output)


def write_snapshots(path: str, snapshots: Snapshots) -> None:
    """Write the snapshots as an uncompressed npz, the same bytes every time.

    Raises UserError if they are not finite, before anything is written.
    """
    for name, values in snapshots._asdict().items():
        if not np.isfinite(values).all():
            raise UserError(f"{path}: {name} must be finite, got nan or inf: lower train.learning_rate")
    with files.writing(path) as file:
        np.savez(file, **snapshots._asdict())


def read_snapshots(path: str) -> Snapshots:
    """Return the snapshots. Raises UserError if the file is missing, damaged or has other shapes or dtypes."""
    with files.reading(path, "a history of this project"), Path(path).open("rb") as file:
        with archive.opened(file) as records:
            if records.namelist() != [f"{name}.npy" for name in Snapshots._fields]:
                raise ValueError
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            snapshots = Snapshots(**arrays)
        k, m, n_output = snapshots.predictions.shape
        shapes = [(k,), (k,), (m, snapshots.x.shape[1]), (m, n_output), (k, m, n_output)]
        if (
            [array.shape for array in snapshots] != shapes
            or [array.dtype.str for array in snapshots] != ["<i8", "<f8", "<f4", "<f4", "<f4"]
            or any(array.size == 0 or not np.isfinite(array).all() for array in snapshots)
            or snapshots.epochs[0] != 0
            or (np.diff(snapshots.epochs) <= 0).any()
        ):
            raise ValueError
    return snapshots


def write_losses(path: str, losses: list[float]) -> None:
    """Write the mean loss of every epoch as a CSV table with the columns epoch and loss."""
    with files.writing(path) as file:
        file.writelines(_table(losses))


def read_losses(path: str) -> np.ndarray:
    """Return the losses, float64 (epochs,). Raises UserError if the file is missing or damaged."""
    with files.reading(path, "a table of epoch and loss"):
        content = Path(path).read_bytes()
        losses = np.array([float(line.partition(b",")[2]) for line in content.split()[1:]])
        if not (losses.size and np.isfinite(losses).all() and b"".join(_table(losses)) == content):
            raise ValueError
    return losses


def _table(losses: Iterable[float]) -> Iterable[bytes]:
    yield b"epoch,loss\n"
    yield from (b"%d,%.9g\n" % row for row in enumerate(losses))
