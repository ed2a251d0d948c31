"""Run modules as `python -m` and code as `python -c`, in forks of a process that has already loaded the libraries.

Loading torch takes 1.5 s, more than most stages need after that, and loading DVC 0.5 s. A fork has both already; its
arguments, environment, folder, output, signals and exit status are its own. DVC runs stages with $SHELL; if that is
tests/shell.py, they are forked, too.
"""

import atexit
import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path

AVAILABLE = sys.platform == "linux"  # Windows has no forks, and those of macOS are unsafe once a library has loaded
LIBRARIES = [
    "torch.distributed",
    "filelock",
    "pydantic",
    "ruamel.yaml",
    "yaml",
    "matplotlib.backends.backend_agg",
    "PIL.PngImagePlugin",
]
LIBRARIES += ["dvc.cli.parser", "dvc.repo.reproduce", "dvc.repo.experiments", "dvc.repo.plots", "dvc.repo.status"]
COMMANDS = {  # and the module that each runs; CODE: the code that follows
    "dvc": "dvc",
    "python -c": (CODE := "-c"),
    "python -m stages": "stages",
    "python -m stages.predict": "stages.predict",
    "python -m tools.report": "tools.report",
    "python -m tools.compare": "tools.compare",
    "python -m tools.params_schema": "tools.params_schema",
    "torchrun": "torch.distributed.run",
}
QUOTED = re.compile(r"""'[^']*'|"[^"$`\\!]*\"""")  # what a shell takes as it is
NEEDS_SHELL = set("|&;<>()$`\\*?[]#~{}!\n")  # characters that need a shell unless they are quoted


class Fork:
    """A module, or code, that runs in a fork: what subprocess.Popen is for a command, its stdout and stderr in one.

    The libraries have been loaded with portable kernels; a stage with others needs a process that loads them itself.
    """

    def __init__(self, folder: Path, environment: dict[str, str], module: str, *arguments: str) -> None:
        start_server()
        self.output, self.text = tempfile.TemporaryFile(), ""  # noqa: SIM115
        output = f"/proc/{os.getpid()}/fd/{self.output.fileno()}"
        context = multiprocessing.get_context("forkserver")
        self.process = context.Process(target=_run, args=(environment, output, str(folder), module, *arguments))
        self.process.start()
        self.pid = self.process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float | None = None) -> int:
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.process), timeout or 0)
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for the end; return what it said."""
        self.wait(timeout)
        if not self.output.closed:
            self.output.seek(0)
            self.text = self.output.read().decode()
            self.output.close()
        return self.text, None


Running = Fork | subprocess.Popen[str]


def start(folder: Path, environment: dict[str, str], *command: str, fork: bool = True) -> Running:
    """Start a command, its stdout and stderr in one; if `fork` and if it is one of COMMANDS, in a fork.

    A line for a shell is forked, too, if it has nothing in it that needs a shell.
    """
    words = command
    if command[:2] == ("bash", "-c") and NEEDS_SHELL.isdisjoint(QUOTED.sub("", command[2])):
        words = tuple(shlex.split(command[2]))
    fork = AVAILABLE and fork and shutil.which(words[0], path=environment.get("PATH")) is not None
    line = " ".join(words) + " "
    for ours, module in COMMANDS.items():
        if fork and line.startswith(f"{ours} "):
            return Fork(folder, environment, module, *words[len(ours.split()) :])
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def start_server() -> None:
    """Load the libraries, unless that is done, in a process which ends with this one."""
    from multiprocessing import forkserver  # late, since Windows has none

    from stages.runtime.run import PORTABLE  # late: a fork imports this module, and is to import stages of its own

    ours = os.environ.copy()
    os.environ.update(PORTABLE, TORCH_CPP_LOG_LEVEL="FATAL")  # as stages.runtime.launcher does for ranks
    try:
        forkserver.set_forkserver_preload([*LIBRARIES, __name__])
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(ours)


@cache
def shell() -> dict[str, str]:
    """Return the environment in which DVC runs the stages in forks; {} where there are none.

    What forks them is a child of the process that has loaded the libraries, and ends with this one.
    """
    if not AVAILABLE:
        return {}
    start_server()
    address = f"stages of {os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")  # in no folder
        listener.listen()
        server = multiprocessing.get_context("forkserver").Process(target=_serve, args=(listener,))
        server.start()
    atexit.register(server.terminate)
    return {"SHELL": str(Path(__file__).with_name("shell.py")), "STAGES_IN_FORKS": address}


def _serve(listener: socket.socket) -> None:
    """Run a stage in a fork for each shell that asks, and answer with its exit status."""
    context = multiprocessing.get_context("fork")
    parent = multiprocessing.parent_process()
    assert parent
    running: dict[int, tuple[multiprocessing.context.ForkProcess, socket.socket]] = {}
    while parent.sentinel not in (ready := wait([parent.sentinel, listener, *running])):
        if listener in ready:
            connection, _ = listener.accept()
            pid, *arguments = connection.recv(1 << 16).decode().split("\0")
            process = context.Process(target=_run_for, args=(pid, "stages", *arguments))
            process.start()
            running[process.sentinel] = process, connection
        for sentinel in running.keys() & set(ready):
            process, connection = running.pop(sentinel)
            process.join()
            with connection, suppress(BrokenPipeError):  # the shell was killed
                connection.sendall(str(process.exitcode).encode())


def _run_for(pid: str, module: str, *arguments: str) -> None:
    """Run a module as the asker would: in its folder, with its environment, all output to its stdout."""
    asker = Path("/proc", pid)
    lines = (asker / "environ").read_bytes().split(b"\0")
    environment = dict(os.fsdecode(line).split("=", 1) for line in lines if line)
    _run(environment, f"{asker}/fd/1", str((asker / "cwd").readlink()), module, *arguments)


def _run(environment: dict[str, str], output: str, folder: str, module: str, *arguments: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_APPEND)  # others may write there, too
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    libraries = [path for path in sys.path if not Path(path, "stages").exists()]
    sys.path[:] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *libraries]
    sys.argv[:] = [module, *arguments]
    if module == CODE:
        code, *sys.argv[1:] = arguments
        with tempfile.TemporaryDirectory() as place:
            Path(place, "code.py").write_text(code, encoding="utf-8")
            runpy.run_path(f"{place}/code.py", run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
