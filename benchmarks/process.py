"""Run a function in a process of its own, with all cores and the fastest kernels, and return what it returns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PROJECT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent

# What would choose other kernels, or fewer threads, than torch and its peers take by themselves.
CHOICES = {"ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE"}
NATIVE = {name: value for name, value in os.environ.items() if name not in CHOICES}
NATIVE |= {"XDG_CACHE_HOME": str(BIN.parent / "cache")}  # where compiled libraries are kept
NATIVE |= {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PROJECT)}


def call(function: Callable, cwd: str | None = None, /, **arguments: Any) -> Any:
    """Return function(**arguments), computed in a new process, in a new folder unless one is given, with its cache.

    What goes in and out has to fit in JSON: a tuple arrives as a list.
    """
    job = json.dumps([function.__module__, function.__name__, arguments])
    with TemporaryDirectory() as folder:
        environment = NATIVE | ({"XDG_CACHE_HOME": cwd} if cwd else {})
        output = run([sys.executable, "-m", "benchmarks.process", job], cwd or folder, environment)
    return json.loads(output.splitlines()[-1])


def run(command: list[str], folder: str, environment: dict[str, str]) -> str:
    """Run a command in a folder and return its stdout. Raises RuntimeError, with all it said, where it fails."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{command} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def memory(field: str) -> int:
    """Return a field of /proc/self/status in bytes: VmHWM is the peak of resident memory, RssAnon what no file backs.

    VmHWM is ru_maxrss of getrusage, but for what a process inherits there of the peak of the one that started it.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    module, name, arguments = json.loads(sys.argv[1])
    result = getattr(import_module(module), name)(**arguments)
    sys.stdout.write(f"\n{json.dumps(result)}\n")
