"""Run a stage: `python -m stages train`. A user's mistake ends it with status 2 and one line per fault."""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from stages import files
from stages.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where only DVC's own lock keeps two runs apart
    fcntl = None  # type: ignore[assignment]

# The code paths that every x86-64 CPU has, on one thread. torch and NumPy read these once, when they load.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # torch's matrix products
    "MKL_VML_DEBUG_CPU_TYPE": "1",  # torch's roots: what COMPATIBLE means, and misses: no approximate instructions
    "ONEDNN_MAX_CPU_ISA": "SSE41",  # torch's GELU
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Prescott",  # NumPy's matrix products, by which matplotlib places what it draws
}

# What Slurm's srun tells each of its tasks, under the names that torchrun uses.
SLURM = {
    "RANK": "SLURM_PROCID",
    "LOCAL_RANK": "SLURM_LOCALID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "MASTER_ADDR": "SLURM_LAUNCH_NODE_IPADDR",
}


class _Stderr(io.FileIO):
    """The standard error, which takes what is said where nobody listens any more: a broken pipe, a terminal closed."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def speak() -> None:
    """Make it safe to write to the standard streams, whoever listens."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed; else the next file that is opened would get what is said
            os.open(os.devnull, os.O_RDWR)
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    stream = io.BufferedWriter(_Stderr(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(stream, encoding, errors="backslashreplace", line_buffering=True)


def run(stage: str) -> None:
    """Read params.yaml, choose the kernels, learn this process's rank, import the stage and run it.

    A stage module has Params and run(params), and may have finish(), which is called last.
    Raises UserError where the stage is running already, and where what it read changed while it ran: DVC, which looks
    at params and deps after a stage has ended, would record the new ones with outputs computed from the old.
    """
    from stages import params  # late, so that a Python without the project's packages is told in one line

    stages = sorted(path.parent.name for path in Path(__file__).parent.glob("*/stage.py"))
    if stage not in stages:
        raise UserError(f"python -m stages STAGE: must be one of {', '.join(stages)}, got {stage!r}")
    document = params.load("params.yaml")
    if document.get("kernels") != "native":
        os.environ.update(PORTABLE)
    for name in [name for name in os.environ if name.startswith("TQDM_")]:  # settings of the user's own progress bars
        del os.environ[name]
    writes = launched_rank() == 0  # of several ranks, the first holds the lock and writes for all

    module = import_module(f"stages.{stage}.stage")
    files.watch(*(str(each.__file__) for name, each in sys.modules.items() if name.startswith("stages.")))
    with alone(stage) if writes else nullcontext():
        module.run(params.check("params.yaml", document, module.Params))
        latest = params.load("params.yaml")
        changed = [f"params.yaml: {name}" for name in module.Params.model_fields if latest.get(name) != document[name]]
        if changed := changed + files.changed():
            raise UserError(
                "\n".join(f"{each}: changed while the stage ran: run `dvc repro` again" for each in changed)
            )
        if writes and hasattr(module, "finish"):
            module.finish()


def launched_rank() -> int:
    """Return the rank that torchrun, srun or another launcher gave this process, 0 where none did.

    What they set is checked here for all who read it; srun's is put under torchrun's names.
    Raises UserError where a variable is missing or odd.
    """
    by_srun = "RANK" not in os.environ and os.environ.get(SLURM["WORLD_SIZE"], "1") != "1"
    if by_srun:
        translated = {name: os.environ[theirs] for name, theirs in SLURM.items() if theirs in os.environ}
        os.environ.update({"MASTER_PORT": "29500"} | translated | os.environ)

    def number(name: str, lowest: int, highest: int, default: str = "") -> int:
        text = os.environ.get(name, default)
        if re.fullmatch("[0-9]{1,9}", text) and lowest <= int(text) <= highest:
            return int(text)
        source = f"{SLURM[name]}, for {name}" if by_srun and name in SLURM else name
        raise UserError(f"{source}: must be a whole number from {lowest} to {highest}, got {text!r}")

    size = number("WORLD_SIZE", 1, 10**6, default="" if "RANK" in os.environ else "1")
    rank = number("RANK", 0, size - 1, default="0" if size == 1 else "")
    number("LOCAL_RANK", 0, size - 1, default="0")
    if size > 1:
        number("MASTER_PORT", 1, 65535)
        if not os.environ.get("MASTER_ADDR"):
            raise UserError("MASTER_ADDR: must be the address of the machine of rank 0, got ''")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # else torch tells of a rank that it waits for in frames
    return rank


@contextmanager
def alone(stage: str) -> Iterator[None]:
    """Keep other processes from running the stage in this folder. Raises UserError where one is running it already."""
    path = Path(".lock", stage)
    if fcntl is None:
        yield
        return
    try:
        path.parent.mkdir(exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}: fix this, then run `dvc repro`") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"the stage {stage} is already running, as process {file.read()}: wait for it to end, or stop it"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        yield


def message_for_user(error: BaseException) -> str | None:
    """Return what to tell the user about an error, one line per fault; None where the error is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, ModuleNotFoundError) and not f"{error.name}".startswith("stages"):
        packages = "activate .venv, where the project's packages are installed, then run `dvc repro`"
        return f"{sys.executable} has no module {error.name}: {packages}"
    # torch raises RuntimeError where the CPU's memory is short, and a kind of it where a GPU's is.
    scarce = isinstance(error, RuntimeError) and re.search("can't allocate memory|out of memory", str(error))
    if isinstance(error, MemoryError) or scarce:
        knobs = "generate.points, network.hidden, train.micro_batch_size or train.epochs"
        return f"out of memory: lower {knobs}, or raise train.snapshot_every, in params.yaml"
    return None


if __name__ == "__main__":
    speak()
    try:
        run(" ".join(sys.argv[1:]))
    except BaseException as error:
        message = message_for_user(error)
        if message is None:
            raise
        speaker = f"rank {os.environ['RANK']}: " if os.environ.get("RANK", "").isdecimal() else ""
        print(f"{speaker}{message}", file=sys.stderr)
        sys.exit(2)
