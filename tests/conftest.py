"""What the tests share: a copy of the project to run DVC in, and stages run as DVC runs them."""

import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, get_type_hints

import pytest
from filelock import FileLock
from ruamel.yaml import YAML

from stages.runtime import progress
from stages.runtime.run import PORTABLE
from tests import forks
from tests.forks import Running

PROJECT = Path(__file__).parent.parent
LESSON = PROJECT / "tests/params.yaml"  # what the tests run with, however the user has edited the project's
PROGRESS = re.compile(r"(\w+ \d+ of \d+|\d+ \w+)(, .*)?\n")  # a line that only long work prints
os.environ.update(PORTABLE)  # before torch loads: what a test computes must not depend on the CPU
progress.LINE_AFTER = math.inf  # nor what it prints on how fast the machine is
signal.signal(signal.SIGINT, signal.default_int_handler)  # for a suite in the background, shells have it ignored
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in PORTABLE}  # of the project's processes
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
IDENTITY = ["user.name=test", "user.email=test@example.com"]
# These may differ from those with which the libraries of a fork were loaded.
READ_LATE = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PATH", "XDG_CACHE_HOME", "COLUMNS"}
READ_LATE |= {"SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_LAUNCH_NODE_IPADDR"}
READ_LATE |= {"SHELL", "STAGES_IN_FORKS"}

SAME_BYTES = (sys.platform, platform.machine()) == ("linux", "x86_64")

same_bytes = pytest.mark.skipif(not SAME_BYTES, reason="the committed bytes are those of Linux on x86-64")
links = pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
posix_errors = pytest.mark.skipif(os.name == "nt", reason="Windows has other words for what is wrong with a file")


def before_summary(output: str) -> str:
    """Return what a stage that ended well printed before the line that says what it did: nothing, if all is quiet.

    Progress does not count, since a slow machine shows it.
    """
    *before, last = output.splitlines(keepends=True)
    assert re.fullmatch(r"(generate|train|plot|evaluate): .* -> data/.* \([\d.]+ (s|min|h)\b.*\)\n", last)
    return "".join(line for line in before if not PROGRESS.fullmatch(line))


class Copy:
    """A copy of the working tree, with the lesson's params and its own git history."""

    def __init__(self, path: Path) -> None:
        self.path = path
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]  # also what is not added yet
        ours = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
        for name in filter(None, ours.stdout.split("\0")):
            if (PROJECT / name).exists():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes((PROJECT / name).read_bytes())
        shutil.copy(LESSON, path / "params.yaml")
        self.run("git", "init", "-q")
        for setting in IDENTITY:
            self.run("git", "config", *setting.split("="))
        self.commit("start")

    def twin(self, path: Path) -> "Copy":
        """Return a copy of the copy as it stands, with its outputs, cache and history."""
        twin = object.__new__(Copy)
        twin.path = Path(shutil.copytree(self.path, path, dirs_exist_ok=True, symlinks=True))
        return twin

    def link_environment(self) -> None:
        """Give the copy a `.venv` with what is installed here, newer than the requirements: make leaves it as it is."""
        (self.path / ".venv").mkdir()  # not a link, which make refuses
        for entry in Path(sys.prefix).iterdir():
            if entry.name != "ready":
                (self.path / ".venv" / entry.name).symlink_to(entry)
        (self.path / ".venv/ready").touch()

    def start(self, *command: str, **environment: str) -> Running:
        """Start a command in the copy, its stdout and stderr in one, in a fork where that makes no difference."""
        as_loaded = READ_LATE.issuperset(environment) and b"\nkernels: portable" in self.read("params.yaml")
        return forks.start(self.path, ENVIRONMENT | environment, *command, fork=as_loaded)

    def run(self, *command: str, status: int = 0, **environment: str) -> str:
        """Run a command in the copy; return its stdout and stderr once its exit status is the one expected."""
        as_here = environment.keys() <= {"COLUMNS"}
        process = self.start(*command, **(forks.shell() if as_here else {}), **environment)
        try:
            output = process.communicate(timeout=900)[0]  # what hangs is to fail, but nothing slow
        finally:
            process.kill()
        assert process.returncode == status, output
        return output

    def stage(self, name: str, status: int = 0, **environment: str) -> str:
        return self.run("python", "-m", "stages", name, status=status, **environment)

    def repro(self, *options: str) -> list[str]:
        """Run `dvc repro`; return the stages that computed, not those restored from the run cache."""
        lines = self.run("dvc", "repro", *options).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def rerun(self, *stages: str) -> None:
        """Run stages and have DVC record them, as `dvc repro` would, but in forks."""
        for stage in stages:
            self.stage(stage)
        self.run("dvc", "commit", "--force", *stages)

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "-q", "--allow-empty", "-m", message)

    def set(self, **values: Any) -> None:
        """Change params: `set(train__epochs=3)`."""
        parser = YAML()
        document = parser.load(self.path / "params.yaml")
        for name, value in values.items():
            *sections, key = name.split("__")
            section = document
            for step in sections:
                section = section[step]
            section[key] = value
        parser.dump(document, self.path / "params.yaml")

    def set_constant(self, source: str, name: str, value: object) -> None:
        """Change a constant in a source file: `set_constant("stages/train/loop.py", "STEPS", 3)`."""
        path = self.path / source
        text, changes = re.subn(rf"(?m)^{name} = .*", f"{name} = {value}", path.read_text(encoding="utf-8"))
        assert changes == 1
        path.write_text(text, encoding="utf-8")

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test as slow that is handed a Copy or starts processes: it runs the project in others than this one."""
    for item in items:
        if isinstance(item, pytest.Function) and (
            Copy in get_type_hints(item.function).values() or starts_processes(item.function)
        ):
            item.add_marker("slow")


def starts_processes(test: FunctionType) -> bool:
    """Return whether the test, or a function of its file that it names, uses subprocess or tests/forks.py."""
    named = [test.__globals__.get(name) for name in names_in(test.__code__)]
    ours = [value for value in named if isinstance(value, FunctionType) and value.__module__ == test.__module__]
    used = [function.__globals__.get(name) for function in (test, *ours) for name in names_in(function.__code__)]
    return any(value is subprocess or value is forks.start for value in used)


def names_in(code: CodeType) -> set[str]:
    """Return the global names that a function uses, also in the comprehensions and functions within it."""
    return set(code.co_names).union(*(names_in(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Copy:
    """A copy that `dvc repro` has run in, its results committed; tests read it and leave it as it is.

    The first worker of the test run that needs it makes it, the others copy that.
    """
    of_all = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    with FileLock(of_all / "trained.lock"):
        if not (of_all / "trained").exists():
            copy = Copy(tmp_path_factory.mktemp("first"))
            copy.run("dvc", "repro", SHELL="/bin/sh")  # the stages in processes, as users run them
            copy.commit("trained")
            copy.run("git", "gc", "--quiet")  # into a few files, which are copied again and again
            copy.path.rename(of_all / "trained")
    shared = object.__new__(Copy)
    shared.path = of_all / "trained"
    return shared.twin(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def done(trained: Copy, tmp_path: Path) -> Copy:
    """A copy that `dvc repro` has run in, which the test may change."""
    return trained.twin(tmp_path)
