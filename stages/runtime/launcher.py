"""Read the environment variables that a launcher such as torchrun or srun sets for each process that it starts."""

import os
import re

from stages.runtime.errors import UserError

# torchrun's names for what Slurm's srun sets for each of its tasks, under its own names.
SLURM = {
    "RANK": "SLURM_PROCID",
    "LOCAL_RANK": "SLURM_LOCALID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "MASTER_ADDR": "SLURM_LAUNCH_NODE_IPADDR",
}


def launched_rank() -> int:
    """Return the rank that torchrun, srun or another launcher gave this process, or 0 if none did.

    Check the variables that they set, for all later readers; copy srun's to the names that torchrun uses.
    Raises UserError if a variable is missing or invalid.
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
            raise UserError("MASTER_ADDR: must be the address of rank 0's machine, got ''")
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # else torch prints stack frames as it waits
    return rank
