"""Where training runs."""

import os

import torch

from stages.errors import UserError


def choose(name: str) -> torch.device:
    """Return the device of that name; `auto` is an accelerator if one is there, or else the CPU.

    Where several ranks share a machine, each has a GPU of its own under `cuda` and `auto`.

    Raises UserError, with the devices that are there, where that one is not.
    """
    accelerators = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    accelerators += ["mps"] if torch.backends.mps.is_available() else []
    there = ["cpu", *accelerators]
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    fastest = accelerators or there
    wanted = {"auto": fastest[local_rank % len(fastest)], "cuda": f"cuda:{local_rank}"}.get(name, name)
    if wanted not in there:
        raise UserError(f"params.yaml: train.device: must be there, got {name}; on this machine: {', '.join(there)}")
    return torch.device(wanted)
