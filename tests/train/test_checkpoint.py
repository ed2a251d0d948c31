"""Interrupted trainings, by real kills of real runs; test_going_on interrupts trainings in its own process."""

import contextlib
import random
import re
import signal
import time

import psutil
import pytest

from tests.conftest import Copy

pytest.importorskip("fcntl", reason="Windows has neither these signals nor named pipes")

FILES = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]
PYTHON = ["python", "-m", "stages", "train"]
RANKS = """
import os, runpy, socket, sys
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
child = os.fork()
rank = "0" if child else "1"
os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
sys.argv[1:] = ["train"]
runpy.run_module("stages", run_name="__main__")
if child and os.wait()[1]:
    sys.exit("rank 1 failed")
"""
TWO_RANKS = ["python", "-c", RANKS]  # as torchrun starts them, but forked, with torch loaded
RANDOM = random.Random(0)


def quick_checkpoints(copy: Copy) -> None:
    """Have the copy save a checkpoint every twentieth of a second."""
    copy.set_constant("stages/train/checkpoint/store.py", "INTERVAL", 0.05)


@pytest.fixture
def endless(done: Copy) -> Copy:
    """A copy whose training does not end before a test has interrupted it."""
    quick_checkpoints(done)
    done.set(train__epochs=10**6, train__snapshot_every=10**4)
    return done


def interrupt(copy: Copy, number: int, command: list[str] = PYTHON, **environment: str) -> str:
    """Start the training, wait until it writes a checkpoint, send a signal at a random moment; return what it said."""
    before = written(copy)
    process = copy.start(*command, **environment)
    try:
        while process.poll() is None and written(copy) == before:
            time.sleep(0.01)
        time.sleep(RANDOM.uniform(0, 0.3))
        if number != signal.SIGKILL:
            process.send_signal(number)
            return process.communicate(timeout=900)[0]
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):  # of DVC, of the launcher
                child.kill()
        process.kill()
    return process.communicate()[0]


def written(copy: Copy) -> int:
    """Return when the checkpoint was written, in nanoseconds; 0 if there is none."""
    try:
        return (copy.path / ".checkpoint/train").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def outputs(copy: Copy) -> list[bytes]:
    return [copy.read(name) for name in FILES]


def ends_with_the_same_bits_however_often_it_is_killed(copy: Copy, command: list[str], **environment: str) -> None:
    """Assert that a training killed three times ends as one that is left alone."""
    quick_checkpoints(copy)
    copy.run(*command, status=0, **environment)
    assert not written(copy)
    expected = outputs(copy)
    resumed = ["Resuming from" in interrupt(copy, signal.SIGKILL, command, **environment) for _ in range(3)]
    assert any(resumed)  # not the first, and a kill may come after the end
    copy.run(*command, status=0, **environment)
    assert outputs(copy) == expected
    assert not written(copy)


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        (PYTHON, {"optimizer_options": {"momentum": 0.9}, "batch_size": 7, "epochs": 200}),
        (
            TWO_RANKS,
            {
                "optimizer": "Adam",
                "learning_rate": 0.001,
                "batch_size": 30,
                "epochs": 300,
                "validation_fraction": 0.2,
                "schedule": "ReduceLROnPlateau",
            },
        ),
    ],
    ids=["alone", "two-ranks"],
)
def test_a_training_killed_again_and_again_ends_with_the_bits_of_one_left_alone(
    done: Copy, command: list[str], changes: dict[str, object]
) -> None:
    done.set(**{f"train__{key}": value for key, value in changes.items()})
    ends_with_the_same_bits_however_often_it_is_killed(done, command)


def test_ctrl_c_saves_and_says_how_far_it_got(endless: Copy) -> None:
    output = interrupt(endless, signal.SIGINT)
    assert re.search(r"(?m)^stopped at epoch \d+ of 1000000; `dvc repro` resumes from there\n\Z", output)
    output = interrupt(endless, signal.SIGINT)
    assert output.startswith("Resuming from the checkpoint .checkpoint/train, at epoch ")


def test_dvc_resumes_a_killed_training(endless: Copy) -> None:
    interrupt(endless, signal.SIGKILL, ["dvc", "repro", "train"])
    output = interrupt(endless, signal.SIGKILL, ["dvc", "repro", "train"])
    assert "Resuming from the checkpoint .checkpoint/train, at epoch " in output


def test_a_checkpoint_of_other_code_is_reported_and_replaced(endless: Copy) -> None:
    interrupt(endless, signal.SIGTERM)
    path = endless.path / "stages/network.py"
    path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
    endless.set(train__epochs=2)
    message = "the checkpoint .checkpoint/train belongs to a run with different code, train.epochs; it is replaced"
    assert endless.stage("train").startswith(f"Not resuming: {message}\n")
    assert not written(endless)
