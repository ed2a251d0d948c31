from pathlib import Path

import numpy as np
import pytest

from stages import history
from stages.errors import UserError
from stages.history import Snapshots

SNAPSHOTS = Snapshots(
    np.array([0, 10]), np.array([0.5, 0.1]), np.ones((3, 1), "f4"), np.ones((3, 2), "f4"), np.ones((2, 3, 2), "f4")
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    history.write_snapshots(str(tmp_path / "history.npz"), SNAPSHOTS)
    for read, written in zip(history.read_snapshots(str(tmp_path / "history.npz")), SNAPSHOTS, strict=True):
        np.testing.assert_array_equal(read, written)
    history.write_losses(str(tmp_path / "loss.csv"), [0.1, 1e-10])
    assert history.read_losses(str(tmp_path / "loss.csv")).tolist() == [0.1, 1e-10]


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": np.array([0])},
        {"losses": np.array([0.5, np.nan])},
        {"x": np.ones((4, 1), "f4")},
        {"y": np.ones(3, "f4")},
        {"predictions": np.ones((2, 3), "f4")},
        {"epochs": np.array([{}, {}])},  # would need pickle
    ],
)
def test_snapshots_of_another_shape_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    path = tmp_path / "history.npz"
    np.savez(path, **SNAPSHOTS._asdict() | change)
    with pytest.raises(UserError, match="is not a history of this project, or is damaged: run `dvc repro`$"):
        history.read_snapshots(str(path))


@pytest.mark.parametrize(
    "content", [b"", b"epoch,loss\n0,x\n", b"epoch,loss\n1,0.5\n", b"epoch,loss\n0,nan\n", b"\xff\n0,1"]
)
def test_a_damaged_loss_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "loss.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a table of epoch and loss, or is damaged: run `dvc repro`$"):
        history.read_losses(str(path))


def test_missing_files_say_what_to_do() -> None:
    with pytest.raises(UserError, match=r"^nowhere.npz: is missing: run `dvc repro`$"):
        history.read_snapshots("nowhere.npz")
    with pytest.raises(UserError, match=r"^nowhere.csv: is missing: run `dvc repro`$"):
        history.read_losses("nowhere.csv")
