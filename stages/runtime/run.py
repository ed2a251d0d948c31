"""Run a stage; on a user's mistake, print one line per fault and exit with status 2."""

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

from stages.runtime import files, streams
from stages.runtime.errors import UserError, did_you_mean, duration
from stages.runtime.launcher import launched_rank

SOURCES = Path(__file__).parent.parent  # stages/

# The code paths that every x86-64 CPU has, on one thread. torch and NumPy read these once, when they load.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # torch's matrix products
    "MKL_VML_DEBUG_CPU_TYPE": "1",  # torch's square roots, which COMPATIBLE does not cover: no approximations
    "ONEDNN_MAX_CPU_ISA": "SSE41",  # torch's GELU
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Prescott",  # NumPy's matrix products, which matplotlib uses to place what it draws
}


def run(stage: str) -> None:
    """Read params.yaml, choose the kernels, find this process's rank, import the stage and run it; say what it did.

    A stage module has Params and run(params), which returns what it did in a few words, and may have finish(), which is
    called last.
    Raises UserError if the stage is running already, or if what it read changed while it ran.
    """
    began = time.monotonic()
    stages = sorted(path.parent.name for path in SOURCES.glob("*/stage.py"))
    if stage not in stages:
        rule = f"STAGE must be one of {', '.join(stages)}, got {stage!r}{did_you_mean(stage, stages)}"
        raise UserError(f"python -m stages STAGE: {rule}")
    files.watch(*sources(stage))  # before they are imported
    # imported late, so that a missing package is reported in one line
    from stages.runtime import params
    from stages.runtime.lock import alone

    document = params.load("params.yaml")
    if document.get("kernels") != "native":
        os.environ.update(PORTABLE)
    for name in [name for name in os.environ if name.startswith("TQDM_")]:  # the user's settings for progress bars
        del os.environ[name]
    writes = launched_rank() == 0  # rank 0 holds the lock and writes for all ranks

    module = import_module(f"stages.{stage}.stage")
    with alone(stage) if writes else nullcontext():
        did = module.run(params.check("params.yaml", document, module.Params))
        latest = params.load("params.yaml")
        sections = [name for name in module.Params.model_fields if latest.get(name) != document.get(name)]
        if changed := [f"params.yaml: {name}" for name in sections] + changed_files():
            raise UserError(
                "\n".join(f"{name}: changed while the stage ran: run `dvc repro` again" for name in changed)
            )
        if writes and hasattr(module, "finish"):
            module.finish()
    if writes and did:
        *remarks, summary = did.splitlines()
        for line in (*remarks, f"{summary} ({duration(time.monotonic() - began)})"):
            print(f"{stage}: {line}", file=sys.stderr)


def sources(stage: str) -> Iterator[str]:
    """Yield the paths of the modules that a stage may import, and of the pins: all but those of other stages."""
    others = {path.parent for path in SOURCES.glob("*/stage.py")} - {SOURCES / stage}
    for pattern in ("*.py", "*.cpp", "requirements*.txt"):
        yield from (str(path) for path in SOURCES.rglob(pattern) if others.isdisjoint(path.parents))


def changed_files() -> list[str]:
    """Return the files that have changed since they were read, and those of the rooms that the stage imports from.

    DVC reads params and deps after a stage has ended: it would record the new ones with the outputs of the old ones.
    """
    ours = [module for name, module in sys.modules.items() if name.startswith(("stages.", "__main__"))]
    imported = {room(path) for module in ours if (path := getattr(module, "__file__", None))}
    return [os.path.relpath(path) for path in files.changed() if not path.endswith(".py") or room(path) in imported]


def room(path: str) -> Path:
    """Return what DVC has as one dep: a folder of stages/, or a file beside the folders."""
    while SOURCES in Path(path).parent.parents:
        path = str(Path(path).parent)
    return Path(path)


def message_for_user(error: BaseException) -> str | None:
    """Return what to tell the user about an error, one line per fault; None if the error is a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, ModuleNotFoundError) and not f"{error.name}".startswith("stages"):
        packages = "activate .venv, where the project's packages are installed, then run `dvc repro`"
        return f"{sys.executable} has no module {error.name}: {packages}"
    # torch raises RuntimeError when the CPU's memory runs out, and a subclass of it when a GPU's does.
    scarce = isinstance(error, RuntimeError) and re.search("can't allocate memory|out of memory", str(error))
    if isinstance(error, MemoryError) or scarce:
        params = "generate.points, network.hidden, train.micro_batch_size or train.epochs"
        return f"out of memory: lower {params}, or raise train.snapshot_every, in params.yaml"
    return None


def main(action: Callable[[], None]) -> None:
    """Do what was asked. On a user's mistake, print one line per fault on stderr and exit with status 2."""
    streams.make_safe()
    for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
        if signal.getsignal(number) is signal.SIG_DFL:  # end as with Ctrl-C, which leaves no half-written file
            signal.signal(number, signal.default_int_handler)
    try:
        action()
    except BaseException as error:
        message = message_for_user(error)
        if message is None:
            raise
        prefix = f"rank {os.environ['RANK']}: " if os.environ.get("RANK", "").isdecimal() else ""
        print(f"{prefix}{message}", file=sys.stderr)
        sys.exit(2)
