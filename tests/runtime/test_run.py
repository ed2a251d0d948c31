"""Stages as DVC runs them: as a process of their own."""

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from stages import dataset
from stages.dataset import Dataset
from stages.runtime.errors import UserError
from stages.runtime.run import message_for_user, run
from tests.conftest import ENVIRONMENT, Copy, before_summary, links

FILES = [
    "train.pt",
    "test.pt",
    "net.pkl",
    "net_params.pkl",
    "loss.csv",
    "history.npz",
    "metrics.json",
    "errors.csv",
    "predictions.csv",
]
PICTURES = ["plots/data.png", "plots/loss.png", "plots/learning.gif", "plots/learning/0.png", "plots/learning/200.png"]
HOSTILE: dict[str, Any] = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AUTO",
    "OMP_NUM_THREADS": "7",
    "MKL_NUM_THREADS": "7",
    "OPENBLAS_CORETYPE": "Haswell",
    "PYTHONHASHSEED": "42",
    "LANG": "tr_TR.ISO-8859-9",
    "LC_ALL": "C",
    "TZ": "Asia/Kathmandu",
    "PYTHONUTF8": "0",
}


def test_a_hostile_environment_changes_no_byte(copy: Copy, trained: Copy) -> None:
    for stage in ("generate", "train", "plot", "evaluate"):
        copy.stage(stage, **HOSTILE)
    for name in FILES + PICTURES:
        assert copy.read(f"data/{name}") == trained.read(f"data/{name}"), name


def test_native_kernels_leave_the_environment_alone(copy: Copy) -> None:
    code = "import os, sys; sys.argv[1:] = ['show']; import runpy; runpy.run_module('stages', run_name='__main__')"
    (copy.path / "stages/show").mkdir()
    (copy.path / "stages/show/stage.py").write_text(
        "import os\nfrom stages.runtime.params import StageParams as Params\n"
        "def run(params): print(params.kernels, os.environ['OMP_NUM_THREADS'])\n"
    )
    assert copy.run("python", "-c", code, OMP_NUM_THREADS="7") == "portable 1\n"
    copy.set(kernels="native")
    assert copy.run("python", "-c", code, OMP_NUM_THREADS="7") == "native 7\n"


def test_a_users_mistake_ends_with_status_2_and_one_line_per_fault(copy: Copy) -> None:
    copy.set(train__epochs=0, network__style="x")
    assert copy.stage("train", status=2).splitlines() == [
        "params.yaml: network.style: must be 'module' or 'sequential', got 'x'",
        "params.yaml: train.epochs: must be greater than 0, got 0",
    ]


UNKNOWN = "python -m stages STAGE: STAGE must be one of evaluate, generate, plot, train, got "


@pytest.mark.parametrize("name", ["", "network", "__main__", "os.path", "train plot"])
def test_an_unknown_stage_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(f'{UNKNOWN}{name!r}')}$"):
        run(name)


def test_an_unknown_stage_is_reported_in_one_line(trained: Copy) -> None:
    output = trained.run("python", "-m", "stages", "trian", "plot", status=2)
    assert output == f"{UNKNOWN}'trian plot'\n"
    assert trained.stage("trian", status=2) == f"{UNKNOWN}'trian': did you mean 'train'?\n"


def test_a_bug_keeps_its_traceback(copy: Copy) -> None:
    (copy.path / "stages/broken").mkdir()
    (copy.path / "stages/broken/stage.py").write_text(
        "from stages.runtime.params import StageParams as Params\ndef run(params): 1 / 0\n"
    )
    assert "Traceback" in copy.stage("broken", status=1)


@pytest.mark.parametrize("module", ["stages.train", "stages.train.stage"])
def test_a_stage_that_is_run_by_its_file_says_how_to_run_it(trained: Copy, module: str) -> None:
    output = trained.run("python", "-m", module, status=1)
    assert output.endswith(("cannot be directly executed\n", "run a stage by its name: python -m stages train\n"))
    assert output.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="the shell of Windows closes no streams")
def test_a_stage_runs_with_closed_streams(done: Copy) -> None:
    expected = done.read("data/net.pkl")
    (done.path / "data/net.pkl").unlink()
    done.run("sh", "-c", "python -m stages train <&- >&- 2>&-")
    assert done.read("data/net.pkl") == expected
    for streams in (">&- 2>&-", "2>&-"):
        done.run("sh", "-c", f"python -m stages trian {streams}", status=2)


def test_a_broken_pipe_changes_no_exit_status(trained: Copy) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        done = subprocess.run(["python", "-m", "stages", "trian"], cwd=trained.path, env=ENVIRONMENT, stderr=broken)
    assert done.returncode == 2


@pytest.mark.parametrize(
    "environment",
    [
        {
            "PYTHONOPTIMIZE": "2",
            "TQDM_NCOLS": "x",
            "TQDM_DISABLE": "x",
            "TQDM_MININTERVAL": "soon",
            "HOME": "/nonexistent",
            "TERM": "dumb",
            "COLUMNS": "x",
            "LC_ALL": "xx_YY",
            "PYTHONIOENCODING": "ascii",
            "CUDA_VISIBLE_DEVICES": "odd",
            "OMP_NUM_THREADS": "text",
        },
        {"PYTHONWARNINGS": "error"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_the_users_environment_changes_nothing(done: Copy, environment: dict[str, str]) -> None:
    expected = done.read("data/net.pkl")
    (done.path / "data/net.pkl").unlink()
    assert before_summary(done.stage("train", status=0, **environment)) == ""
    assert done.read("data/net.pkl") == expected


def test_native_kernels_work_where_the_number_of_threads_is_text(done: Copy) -> None:
    done.set(kernels="native", train__epochs=2)
    output = before_summary(done.stage("train", OMP_NUM_THREADS="text", MKL_NUM_THREADS="text"))
    assert output.strip() in ("", "libgomp: Invalid value for environment variable OMP_NUM_THREADS")


@links
@pytest.mark.parametrize("missing", ["pydantic", "torch"])
def test_a_python_without_the_packages_is_named(trained: Copy, tmp_path: Path, missing: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    (packages,) = (tmp_path / "bare").glob("lib/python*/site-packages")
    for package in Path(pytest.__file__).parent.parent.iterdir():
        if missing == "torch" and not package.name.startswith("torch"):
            (packages / package.name).symlink_to(package)
    path = f"{tmp_path}/bare/bin{os.pathsep}{os.environ['PATH']}"
    copy = trained.twin(tmp_path / "copy")
    output = copy.run(str(Path(sys.executable).parent / "dvc"), "repro", "--force", "train", PATH=path, status=255)
    python = f"{tmp_path}/bare/bin/python"
    rest = "activate .venv, where the project's packages are installed, then run `dvc repro`\n"
    assert any(f"{python}{version} has no module {missing}: {rest}" in output for version in ("", "3"))
    assert "Traceback" not in output


@contextmanager
def training(copy: Copy, *command: str) -> Iterator[psutil.Popen]:
    """Train for long in the background, from when the lock is held; end what is left of it after the block."""
    copy.set(train__epochs=10**7)
    lock = copy.path / ".lock/train"
    lock.unlink(missing_ok=True)
    started = psutil.Popen(command, cwd=copy.path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=-3)
    family, give_up = [started], time.monotonic() + 300
    try:
        while not (lock.exists() and lock.read_text()):
            assert started.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.05)
        family += started.children(recursive=True)
        yield started
    finally:
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        started.wait()


unix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals, and lets nobody read a locked file")


@unix
def test_a_stage_that_is_running_already_is_reported_and_a_killed_one_leaves_no_lock(done: Copy) -> None:
    with training(done, "python", "-m", "stages", "train") as first:
        running = f"the stage train is already running, as process {first.pid}: wait for it to end, or stop it\n"
        assert done.stage("train", status=2) == running
        done.stage("generate")  # another stage has a lock of its own
        first.kill()
        first.wait()
    done.set(train__epochs=2)
    done.stage("train")


@unix
def test_a_training_that_survives_its_dvc_is_reported_to_the_next(done: Copy) -> None:
    with training(done, "dvc", "repro", "train") as dvc:
        dvc.kill()
        dvc.wait()
        output = done.run("dvc", "repro", "train", status=255)
        holder = done.read(".lock/train").decode()
        line = f"the stage train is already running, as process {holder}: wait for it to end, or stop it\n"
        assert line in output
        assert "Traceback" not in output


NO_LOCKS = """
#include <errno.h>
#include <stdlib.h>
int flock(int file, int operation) { errno = atoi(getenv("LOCK_ERROR")); return -1; }
"""


@pytest.mark.skipif(not (sys.platform == "linux" and shutil.which("cc")), reason="no way to refuse locks")
def test_a_file_system_without_locks_is_named_and_the_stage_runs(copy: Copy) -> None:
    library = str(copy.path / "no_locks.so")
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"], input=NO_LOCKS, text=True, check=True)
    code = "from stages.runtime.lock import alone\nwith alone('train'): print('runs')"
    for error in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        output = copy.run("python", "-c", code, LD_PRELOAD=library, LOCK_ERROR=str(error))
        assert output == ".lock/train: the file system has no locks: do not run train twice at once here\nruns\n"


@unix
def test_a_lock_that_cannot_be_written_is_reported_in_one_line(done: Copy) -> None:
    (done.path / ".lock/generate").unlink()
    (done.path / ".lock/generate").symlink_to("/dev/null")
    output = done.stage("generate", status=2)
    reason = "Too many levels of symbolic links"
    assert output == f".lock/generate: cannot be written: {reason}: fix this, then run `dvc repro`\n"


def test_two_runs_at_once_leave_whole_files(done: Copy) -> None:
    done.set(generate__points=10**5)
    processes = [done.start("python", "-m", "stages", "generate") for _ in range(3)]
    for process in processes:
        process.communicate(timeout=900)
    assert {process.returncode for process in processes} <= {0, 2}
    assert len(dataset.read(str(done.path / "data/train.pt")).x) == 10**5
    assert not list(done.path.glob("data/*.part"))


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that another writer is replacing")
def test_writers_at_once_leave_the_whole_file_of_one(tmp_path: Path) -> None:
    path = str(tmp_path / "points.pt")
    points = [Dataset(torch.full((10**5, 1), float(writer)), torch.zeros(10**5, 1)) for writer in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda written: dataset.write(path, written), points))
    assert len(dataset.read(path).x.unique()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["points.pt"]


@pytest.mark.parametrize(
    ("error", "is_scarce"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 B"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("more than one element of the written-to tensor refers to a single memory location"), False),
        (ValueError("the model ran out of memory"), False),
    ],
)
def test_what_is_short_of_memory_and_what_only_speaks_of_it(error: Exception, is_scarce: bool) -> None:
    message = message_for_user(error)
    assert (message is not None and message.startswith("out of memory: ")) == is_scarce
