"""How the network learned, as files: snapshots of its predictions (.npz) and the loss of every epoch (.csv)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from stages import files


class Snapshots(NamedTuple):
    """What the network predicted as it learned, at k epochs, for m of the training points."""

    epochs: np.ndarray  # int64 (k,): how many epochs of training came before
    losses: np.ndarray  # float64 (k,): mean loss over all training points
    x: np.ndarray  # float32 (m, n_feature)
    y: np.ndarray  # float32 (m, n_output)
    predictions: np.ndarray  # float32 (k, m, n_output)


def write_snapshots(path: str, snapshots: Snapshots) -> None:
    """Write the snapshots as an uncompressed npz, the same bytes every time."""
    with files.writing(path) as file:
        np.savez(file, **snapshots._asdict())


def read_snapshots(path: str) -> Snapshots:
    """Return the snapshots. Raises UserError where the file is missing, damaged or not of this shape."""
    with files.reading(path, "a history of this project"):
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            snapshots = Snapshots(**file)
        k, m, n_output = snapshots.predictions.shape
        shapes = [(k,), (k,), (m, snapshots.x.shape[1]), (m, n_output), (k, m, n_output)]
        if [array.shape for array in snapshots] != shapes or not all(np.isfinite(array).all() for array in snapshots):
            raise ValueError
    return snapshots


def write_losses(path: str, losses: list[float]) -> None:
    """Write the mean loss of every epoch as a table of epoch and loss."""
    with files.writing(path) as file:
        file.write(b"epoch,loss\n")
        file.writelines(b"%d,%.9g\n" % row for row in enumerate(losses))


def read_losses(path: str) -> np.ndarray:
    """Return the losses, float64 (epochs,). Raises UserError where the file is missing or damaged."""
    with files.reading(path, "a table of epoch and loss"):
        epochs, losses = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2, encoding="utf-8").T
        if not (np.array_equal(epochs, np.arange(len(losses))) and np.isfinite(losses).all()):
            raise ValueError
    return losses
