"""Stages as DVC runs them: as a process of their own."""

import os
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
from stages.runtime.run import message_for_user
from tests.conftest import ENVIRONMENT, Copy, before_summary, links

FILES = [
    "train.pt",
    "test.pt",
    "net.pkl",
    "net_params.pkl",
    "loss.csv",
    "history.npz",
    "metrics.json",
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


@pytest.mark.parametrize("words", [[], ["trian"], ["network"], ["__main__"], ["os.path"], ["train", "plot"]])
def test_an_unknown_stage_is_reported(trained: Copy, words: list[str]) -> None:
    output = trained.run("python", "-m", "stages", *words, status=2)
    stages, nearest = "evaluate, generate, plot, train", ": did you mean 'train'?" if words == ["trian"] else ""
    assert output == f"python -m stages STAGE: STAGE must be one of {stages}, got {' '.join(words)!r}{nearest}\n"


def test_the_users_own_settings_of_tqdm_change_nothing(copy: Copy) -> None:
    copy.set(train__epochs=2)
    copy.stage("generate")
    assert before_summary(copy.stage("train", TQDM_MININTERVAL="often", TQDM_DESC="mine")) == ""


def test_a_bug_keeps_its_traceback(copy: Copy) -> None:
    (copy.path / "stages/broken").mkdir()
    (copy.path / "stages/broken/stage.py").write_text(
        "from stages.runtime.params import StageParams as Params\ndef run(params): 1 / 0\n"
    )
    assert "Traceback" in copy.stage("broken", status=1)


@pytest.mark.parametrize(("module", "status"), [("stages.train", 1), ("stages.train.stage", 1)])
def test_a_stage_that_is_run_by_its_file_says_how_to_run_it(trained: Copy, module: str, status: int) -> None:
    told = trained.run("python", "-m", module, status=status)
    assert told.endswith(("cannot be directly executed\n", "run a stage by its name: python -m stages train\n"))
    assert told.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="the shell of Windows closes no streams")
@pytest.mark.parametrize("streams", [">&- 2>&-", "<&- >&- 2>&-", "2>&-"])
def test_a_stage_runs_with_closed_streams(done: Copy, streams: str) -> None:
    expected = done.read("data/net.pkl")
    (done.path / "data/net.pkl").unlink()
    done.run("sh", "-c", f"python -m stages train {streams}")
    assert done.read("data/net.pkl") == expected
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
        {"PYTHONOPTIMIZE": "2"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_the_users_environment_changes_nothing(done: Copy, environment: dict[str, str]) -> None:
    expected = done.read("data/net.pkl")
    (done.path / "data/net.pkl").unlink()
    assert before_summary(done.stage("train", status=0, **environment)) == ""
    assert done.read("data/net.pkl") == expected


@pytest.mark.parametrize("threads", ["0", "-1", "text", ""])
def test_native_kernels_work_with_an_odd_number_of_threads(done: Copy, threads: str) -> None:
    done.set(kernels="native", train__epochs=2)
    told = before_summary(done.stage("train", OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads))
    assert told.strip() in ("", "libgomp: Invalid value for environment variable OMP_NUM_THREADS")


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
    told = copy.run(str(Path(sys.executable).parent / "dvc"), "repro", "--force", "train", PATH=path, status=255)
    python = f"{tmp_path}/bare/bin/python"
    rest = "activate .venv, where the project's packages are installed, then run `dvc repro`\n"
    assert any(f"{python}{version} has no module {missing}: {rest}" in told for version in ("", "3"))
    assert "Traceback" not in told


@contextmanager
def training(copy: Copy, *command: str) -> Iterator[psutil.Popen]:
    """Train for long in the background, from when the lock is held; end what is left of it after the block."""
    copy.set(train__epochs=10**7)
    lock = copy.path / ".lock/train"
    lock.unlink(missing_ok=True)
    started = psutil.Popen(command, cwd=copy.path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=-3)
    family = [started]
    try:
        while not (lock.exists() and lock.read_text()):
            assert started.poll() is None
            time.sleep(0.05)
        family += started.children(recursive=True)
        yield started
    finally:
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        started.wait()


unix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals, and lets nobody read a locked file")


@unix
def test_a_stage_that_is_running_already_is_reported_and_a_killed_one_leaves_no_lock(done: Copy) -> None:
    with training(done, "python", "-m", "stages", "train") as first:
        told = done.stage("train", status=2)
        assert told == f"the stage train is already running, as process {first.pid}: wait for it to end, or stop it\n"
        done.stage("generate")  # another stage has a lock of its own
        first.kill()
        first.wait()
    done.set(train__epochs=2)
    done.stage("train")


@unix
@pytest.mark.parametrize("number", [15, 9])
def test_a_training_that_survives_its_dvc_is_reported_to_the_next(done: Copy, number: int) -> None:
    with training(done, "dvc", "repro", "train") as dvc:
        dvc.send_signal(number)
        dvc.wait()
        told = done.run("dvc", "repro", "train", status=255)
        holder = done.read(".lock/train").decode()
        line = f"the stage train is already running, as process {holder}: wait for it to end, or stop it\n"
        assert line in told
        assert "Traceback" not in told


@pytest.mark.skipif(not (sys.platform == "linux" and shutil.which("cc")), reason="no way to refuse locks")
@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_named_and_the_stage_runs(done: Copy, error: str) -> None:
    source = f"#include <errno.h>\nint flock(int file, int operation) {{ errno = {error}; return -1; }}\n"
    library = done.path / "no_locks.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-"], input=source, text=True, check=True)
    output = before_summary(done.stage("generate", LD_PRELOAD=str(library)))
    assert output == ".lock/generate: the file system has no locks: do not run generate twice at once here\n"


@unix
def test_a_lock_that_cannot_be_written_is_reported_in_one_line(done: Copy) -> None:
    (done.path / ".lock/generate").unlink()
    (done.path / ".lock/generate").symlink_to("/dev/null")
    output = done.stage("generate", status=2)
    reason = "Too many levels of symbolic links"
    assert output == f".lock/generate: cannot be written: {reason}: fix this, then run `dvc repro`\n"


def test_two_runs_at_once_leave_whole_files(done: Copy) -> None:
    done.set(generate__points=10**6)
    processes = []
    for _ in range(3):
        processes.append(
            subprocess.Popen(["python", "-m", "stages", "generate"], cwd=done.path, env=ENVIRONMENT, stderr=-3)
        )
        time.sleep(0.25)
    assert {process.wait(timeout=60) for process in processes} <= {0, 2}
    assert len(dataset.read(str(done.path / "data/train.pt")).x) == 10**6
    assert not list(done.path.glob("data/*.part"))


@pytest.mark.skipif(os.name == "nt", reason="Windows replaces no file that another writer is replacing")
def test_writers_at_once_leave_the_whole_file_of_one(tmp_path: Path) -> None:
    path = str(tmp_path / "points.pt")
    points = [Dataset(torch.full((10**5, 1), float(writer)), torch.zeros(10**5, 1)) for writer in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: dataset.write(path, each), points))
    assert len(dataset.read(path).x.unique()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["points.pt"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("more than one element of the written-to tensor refers to a single memory location"), False),
        (ValueError("the model ran out of memory"), False),
    ],
)
def test_what_is_short_of_memory_and_what_only_speaks_of_it(error: Exception, told: bool) -> None:
    message = message_for_user(error)
    assert (message is not None and message.startswith("out of memory: ")) == told
