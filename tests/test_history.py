import gzip
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stages import history
from stages.columns import Columns, Number
from stages.history import Snapshots
from stages.runtime.errors import UserError

SNAPSHOTS = Snapshots(
    np.array([0, 10]), np.array([0.5, 0.1]), np.ones((3, 1), "f4"), np.ones((3, 2), "f4"), np.ones((2, 3, 2), "f4")
)
ARRAYS = {name: values for name, values in SNAPSHOTS._asdict().items() if name != "columns"}


@pytest.mark.parametrize(
    "columns", [None, Columns(features=[Number(name="größe, 身高")], targets=[Number(name="a"), Number(name="b\n$")])]
)
def test_snapshots_are_read_as_they_were_written(tmp_path: Path, columns: Columns | None) -> None:
    path = str(tmp_path / "history.npz")
    history.write_snapshots(path, SNAPSHOTS._replace(columns=columns))
    *arrays, read_columns = history.read_snapshots(path)
    for read, written in zip(arrays, ARRAYS.values(), strict=True):
        np.testing.assert_array_equal(read, written)
    assert read_columns == columns


def test_an_archive_has_no_headers_that_differ_between_pythons(tmp_path: Path) -> None:
    path = tmp_path / "history.npz"
    history.write_snapshots(str(path), SNAPSHOTS)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as records:
        for record in records.infolist():
            version, *_, extra_bytes = struct.unpack_from("<5H3I2H", content, record.header_offset + 4)
            assert (version, extra_bytes) == (20, 0)  # with np.savez 20 or 45, and 20 bytes
            assert (record.create_version, record.create_system, record.extract_version) == (20, 3, 20)
            assert (record.flag_bits, record.external_attr, record.extra) == (0, 0o600 << 16, b"")
            assert record.date_time == (1980, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("names", [["loss"], ["loss", "validation_loss"], ["loss", "learning_rate"], [*history.LOSSES]])
def test_the_columns_of_a_loss_table_are_read_as_they_were_written(tmp_path: Path, names: list[str]) -> None:
    path = str(tmp_path / "loss.csv")
    losses = {name: [place / 10, 1e-10] for place, name in enumerate(names)}
    history.write_losses(path, losses)
    assert {name: values.tolist() for name, values in history.read_losses(path).items()} == losses


def as_columns(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": np.array([0])},
        {"losses": np.array([0.5, np.nan])},
        {"x": np.ones((4, 1), "f4")},
        {"y": np.ones(3, "f4")},
        {"predictions": np.ones((2, 3), "f4")},
        {"epochs": np.array([{}, {}])},  # would need pickle
        {"epochs": np.array([0.0, 10.0])},
        {"epochs": np.array([0, 10], ">i8")},
        {"epochs": np.array([0, 0])},
        {"epochs": np.array([1, 10])},
        {"losses": np.array([0.5, 0.1], "f4")},
        {"x": np.ones((3, 1))},
        {"x": np.ones((3, 0), "f4")},
        {"x": np.array([["1"], ["2"], ["3"]])},
        {"predictions": np.ones((2, 3, 2), bool)},
        {"more": np.ones(1)},
        {"columns": as_columns('{"features": ["a"], "targets": ["b"]}')},  # of another width
        {"columns": as_columns('{"features": ["a", "b"], "targets": ["c", "d"]}')},
        {"columns": as_columns('{"features": ["a"], "targets": ["b", "b"]}')},
        {"columns": as_columns("{")},
        {"columns": np.ones((), bool)},
    ],
)
def test_snapshots_of_another_shape_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    path = tmp_path / "history.npz"
    np.savez(path, **ARRAYS | change)
    with pytest.raises(UserError, match="is not a history of this project, or is damaged: run `dvc repro`$"):
        history.read_snapshots(str(path))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"epoch,loss\n",
        b"epoch,loss\n0,x\n",
        b"epoch,loss\n1,0.5\n",
        b"epoch,loss\n0,nan\n",
        b"epoch,loss\n0,0.5",
        b"epoch,loss\n0,0.5\n\n",
        b"epoch,loss\n0,0.5 # no comment\n",
        b"epoch,loss,more\n0,0.5,1\n",
        b"epoch,validation_loss\n0,0.5\n",
        b"epoch,loss,loss\n0,0.5,0.5\n",
        b"epoch,loss,learning_rate,validation_loss\n0,0.5,0.5,0.5\n",
        b"epoch,loss,validation_loss\n0,0.5\n",
        b"epoch,loss,validation_loss\n0,0.5,nan\n",
        b"loss,epoch\n0,0.5\n",
        b"\xff\n0,1",
    ],
)
def test_a_damaged_loss_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "loss.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a table of epoch and loss, or is damaged: run `dvc repro`$"):
        history.read_losses(str(path))


def test_snapshots_in_an_archive_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "history.npz"
    history.write_snapshots(str(path), SNAPSHOTS)
    written = path.read_bytes()
    np.savez_compressed(path, **ARRAYS)
    for content in (path.read_bytes(), written + b"x", b"x" + written, written + written):
        path.write_bytes(content)
        with pytest.raises(UserError, match="is not a history of this project, or is damaged: run `dvc repro`$"):
            history.read_snapshots(str(path))


def test_predictions_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "history.npz"
    with pytest.raises(
        UserError, match=r"history.npz: predictions must be finite, got nan or inf: lower train.learning_rate$"
    ):
        history.write_snapshots(str(path), SNAPSHOTS._replace(predictions=SNAPSHOTS.predictions * np.inf))
    assert not path.exists()


def test_a_packed_table_beside_a_missing_one_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "loss.csv"
    history.write_losses(str(path), {"loss": [0.1]})
    with gzip.open(f"{path}.gz", "wb") as packed:
        packed.write(path.read_bytes())
    path.unlink()
    with pytest.raises(UserError, match="loss.csv: is missing: run `dvc repro`$"):
        history.read_losses(str(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names")
@pytest.mark.parametrize("read", [history.read_snapshots, history.read_losses])
def test_a_pipe_and_a_device_are_reported_rather_than_waited_for(tmp_path: Path, read: Callable[[str], object]) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/zero"):
        with pytest.raises(
            UserError, match=f"^{path}: cannot be read: Not a regular file: fix this, then run `dvc repro`$"
        ):
            read(path)


def test_missing_files_say_what_to_do() -> None:
    with pytest.raises(UserError, match=r"^nowhere.npz: is missing: run `dvc repro`$"):
        history.read_snapshots("nowhere.npz")
    with pytest.raises(UserError, match=r"^nowhere.csv: is missing: run `dvc repro`$"):
        history.read_losses("nowhere.csv")
