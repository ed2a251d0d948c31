"""Interrupted trainings, by real kills of real runs."""

import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from tests.conftest import ENVIRONMENT, Copy, before_summary

pytest.importorskip("fcntl", reason="Windows has neither these signals nor named pipes")

FILES = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]
PYTHON = ["python", "-m", "stages", "train"]
TORCHRUN = ["torchrun", "--standalone", "--nproc-per-node", "2", "-m", "stages", "train"]
RANDOM = random.Random(0)


def quick_checkpoints(copy: Copy) -> None:
    """Have the copy save a checkpoint every twentieth of a second."""
    path = copy.path / "stages/train/checkpoint/store.py"
    text, changes = re.subn(r"(?m)^INTERVAL = .*", "INTERVAL = 0.05", path.read_text(encoding="utf-8"))
    assert changes == 1
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy that has trained for a few seconds, in which a checkpoint is due every twentieth of one."""
    copy = Copy(tmp_path_factory.mktemp("undisturbed"))
    quick_checkpoints(copy)
    copy.set(train__epochs=3000, train__snapshot_every=100)
    copy.stage("generate")
    copy.run(*PYTHON)
    assert not state(copy)
    return copy


@pytest.fixture(scope="session")
def stopped(undisturbed: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy whose training has been stopped half-way."""
    copy = undisturbed.twin(tmp_path_factory.mktemp("stopped"))
    interrupt(copy, signal.SIGTERM)
    assert state(copy)
    return copy


@pytest.fixture
def long(undisturbed: Copy, tmp_path: Path) -> Copy:
    """A copy like the undisturbed one, to disturb."""
    return undisturbed.twin(tmp_path)


def interrupt(copy: Copy, number: int, command: list[str] = PYTHON) -> str:
    """Start the training, wait until it writes a checkpoint, send a signal at a random moment; return what it said."""
    before = state(copy)
    process = copy.start(*command)
    try:
        while process.poll() is None and state(copy) == before:
            time.sleep(0.01)
        time.sleep(RANDOM.uniform(0, 0.3))
        if number != signal.SIGKILL:
            process.send_signal(number)
            return process.communicate(timeout=60)[0]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for each in psutil.Process(process.pid).children(recursive=True):  # of DVC, of the launcher
                each.kill()
        process.kill()
    return process.communicate()[0]


def state(copy: Copy) -> float:
    """Return when the checkpoint was written, 0 where there is none."""
    try:
        return (copy.path / ".checkpoint/train").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def outputs(copy: Copy) -> list[bytes]:
    return [copy.read(name) for name in FILES]


@pytest.mark.parametrize(
    ("command", "kills", "kernels", "changes"),
    [
        (PYTHON, 5, "portable", {}),
        (PYTHON, 4, "portable", {"optimizer_options": {"momentum": 0.9}, "batch_size": 7, "epochs": 200}),
        (PYTHON, 3, "native", {"optimizer": "Adam", "learning_rate": 0.001, "micro_batch_size": 33, "epochs": 1500}),
        (
            PYTHON,
            4,
            "native",
            {
                "steps": "compiled",
                "optimizer": "Adam",
                "learning_rate": 0.001,
                "batch_size": 7,
                "epochs": 4000,
                "validation_fraction": 0.2,
                "schedule": "ReduceLROnPlateau",
            },
        ),
        (PYTHON, 4, "portable", {"optimizer": "LBFGS", "learning_rate": 0.01, "epochs": 120, "snapshot_every": 7}),
        (TORCHRUN, 3, "portable", {"optimizer": "Adam", "learning_rate": 0.001, "batch_size": 30, "epochs": 300}),
        (
            TORCHRUN,
            3,
            "portable",
            {"batch_size": 30, "epochs": 200, "validation_fraction": 0.2, "schedule": "ReduceLROnPlateau"},
        ),
    ],
    ids=[
        "full",
        "momentum-mini-batch",
        "adam-micro-batches",
        "compiled",
        "lbfgs",
        "two-ranks",
        "validation-on-two-ranks",
    ],
)
def test_a_training_killed_again_and_again_ends_with_the_bits_of_one_left_alone(
    long: Copy, command: list[str], kills: int, kernels: str, changes: dict[str, object]
) -> None:
    if changes:
        long.set(kernels=kernels, **{f"train__{key}": value for key, value in changes.items()})
        long.run(*command)
        assert not state(long)
    expected = outputs(long)
    resumed = sum("Resuming from" in interrupt(long, signal.SIGKILL, command) for _ in range(kills))
    assert resumed >= kills - 2  # not the first, and a kill may come after the end
    long.run(*command)
    assert outputs(long) == expected
    assert not state(long)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_sigterm_and_sighup_save_and_say_how_far_it_got(long: Copy, number: int) -> None:
    expected = outputs(long)
    told = interrupt(long, number)
    assert re.fullmatch(r"stopped at epoch \d+ of 3000; `dvc repro` resumes from there\n", told)
    assert long.stage("train").startswith("Resuming from the checkpoint .checkpoint/train, at epoch ")
    assert outputs(long) == expected


def test_a_training_under_nohup_hears_no_hangup(long: Copy) -> None:
    expected = outputs(long)
    assert before_summary(interrupt(long, signal.SIGHUP, ["nohup", *PYTHON])) == ""
    assert outputs(long) == expected


def test_dvc_resumes_a_killed_training(long: Copy) -> None:
    expected = outputs(long)
    interrupt(long, signal.SIGKILL, ["dvc", "repro", "train"])
    assert "Resuming from the checkpoint .checkpoint/train" in long.run("dvc", "repro", "train")
    assert outputs(long) == expected


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"train__learning_rate": 0.1}, "train.learning_rate"),
        ({"network__hidden": 11}, "network.hidden"),
        ({"kernels": "native"}, "kernels, processor"),
        ({"generate__seed": 2}, "data/train.pt"),
        ({}, "code"),
    ],
)
def test_a_state_of_another_training_is_reported_and_left(
    stopped: Copy, tmp_path: Path, change: dict[str, object], name: str
) -> None:
    copy = stopped.twin(tmp_path)
    copy.set(**change, train__launcher="anything")
    if name == "data/train.pt":
        copy.stage("generate")
    if name == "code":
        path = copy.path / "stages/network.py"
        path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    told = before_summary(copy.stage("train"))
    message = f"the checkpoint .checkpoint/train belongs to a run with different {name}; it is replaced"
    assert told == f"Not resuming: {message}\n"
    assert not state(copy)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:100] + b"\0" + b[101:], lambda b: b"", lambda b: b[:64]]
)
def test_a_damaged_state_is_reported_and_left(stopped: Copy, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    copy = stopped.twin(tmp_path)
    path = copy.path / ".checkpoint/train"
    path.write_bytes(damage(path.read_bytes()))
    copy.set(train__epochs=1)
    assert before_summary(copy.stage("train")) == "Not resuming: the checkpoint .checkpoint/train is damaged\n"
    assert not state(copy)


def with_digest(body: bytes) -> bytes:
    """Return a checkpoint with this content, sealed as ours are."""
    return hashlib.blake2b(body).digest() + body


def saved(state: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return with_digest(buffer.getvalue())


@pytest.mark.parametrize("forge", ["text", "list", "no parts", "another network", "nan"])
def test_foreign_content_under_a_right_digest_is_reported_and_left(stopped: Copy, tmp_path: Path, forge: str) -> None:
    copy = stopped.twin(tmp_path)
    expected = outputs(copy.twin(tmp_path / "expected"))
    path = copy.path / ".checkpoint/train"
    content = torch.load(io.BytesIO(path.read_bytes()[64:]), weights_only=True)
    forged = {
        "text": with_digest(b"text"),
        "list": saved([1, 2]),
        "no parts": saved({"fingerprint": content["fingerprint"]}),
        "another network": saved(content | {"net": {"weight": torch.zeros(3)}}),
        "nan": saved(content | {"net": {name: values * torch.nan for name, values in content["net"].items()}}),
    }
    path.write_bytes(forged[forge])
    assert before_summary(copy.stage("train")) == "Not resuming: the checkpoint .checkpoint/train is damaged\n"
    assert outputs(copy) == expected
    assert not state(copy)


def test_a_checkpoint_that_cannot_be_written_warns_once_and_training_goes_on(long: Copy) -> None:
    expected = outputs(long)
    shutil.rmtree(long.path / ".checkpoint")
    (long.path / ".checkpoint").write_text("a file where the folder should be")
    told = before_summary(long.stage("train")).splitlines()
    assert told[0] == "Not resuming: the checkpoint .checkpoint/train cannot be read: Not a directory"
    assert re.fullmatch(r"Training continues without a checkpoint: .checkpoint/train: cannot be written: .*", told[1])
    assert len(told) == 2
    assert outputs(long) == expected


def test_a_checkpoint_that_cannot_be_written_is_reported_to_who_asked_to_stop(long: Copy) -> None:
    shutil.rmtree(long.path / ".checkpoint")
    (long.path / ".checkpoint").write_text("a file where the folder should be")
    with psutil.Popen(PYTHON, cwd=long.path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        while "Training continues" not in process.stderr.readline() and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1]
    assert re.fullmatch(
        r"stopped at epoch \d+ of 3000; without a checkpoint: .checkpoint/train: cannot be written: .*\n", told
    )
    assert process.returncode == 2


def test_a_folder_or_a_pipe_in_place_of_the_checkpoint_is_reported_and_left(long: Copy) -> None:
    expected = outputs(long)
    path = long.path / ".checkpoint/train"
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    told = long.stage("train")
    assert told.startswith("Not resuming: the checkpoint .checkpoint/train cannot be read: Not a regular file")
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "file").touch()
    told = long.stage("train")
    assert told.startswith("Not resuming: the checkpoint .checkpoint/train cannot be read: Is a directory\n")
    assert outputs(long) == expected
