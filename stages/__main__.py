"""Run a stage: `python -m stages train`. A user's mistake ends it with status 2 and one line a fault."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

from stages import params
from stages.errors import UserError

# The code paths that every x86-64 CPU has, on one thread. torch and NumPy read these once, when they load.
PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # torch's matrix products
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Prescott",  # NumPy's matrix products, by which matplotlib places what it draws
}

# What srun of Slurm tells each of its tasks, by the names that torchrun has for it.
SLURM = {
    "RANK": "SLURM_PROCID",
    "LOCAL_RANK": "SLURM_LOCALID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "MASTER_ADDR": "SLURM_LAUNCH_NODE_IPADDR",
}


def run(stage: str) -> None:
    """Read the params of a stage, choose the kernels, learn its rank, import the stage and run it."""
    document = params.load("params.yaml")
    if document.get("kernels") != "native":
        os.environ.update(PORTABLE)
    if "RANK" not in os.environ and int(os.environ.get(SLURM["WORLD_SIZE"], "1")) > 1:
        told = {name: os.environ[theirs] for name, theirs in SLURM.items()}
        os.environ.update({"MASTER_PORT": "29500"} | told | os.environ)
    module = import_module(f"stages.{stage}") if stage.isidentifier() and find_spec(f"stages.{stage}") else None
    if not hasattr(module, "Params"):
        raise UserError(f"python -m stages STAGE: must be a module of stages/ with Params and run(), got {stage!r}")
    module.run(params.check("params.yaml", document, module.Params))


def fault(error: BaseException) -> str | None:
    """Return what to tell the user of an error, a line a fault; None where the error is a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in str(error)):  # torch's own
        knobs = "generate.points, network.hidden, train.micro_batch_size or train.epochs"
        return f"out of memory: lower {knobs}, or raise train.snapshot_every, in params.yaml"
    return None


if __name__ == "__main__":
    try:
        run(" ".join(sys.argv[1:]))
    except BaseException as error:
        told = fault(error)
        if told is None:
            raise
        speaker = f"rank {os.environ['RANK']}: " if "RANK" in os.environ else ""
        print(f"{speaker}{told}", file=sys.stderr)
        sys.exit(2)
