"""Where training runs."""

import torch

from stages.errors import UserError


def choose(name: str) -> torch.device:
    """Return the device of that name; `auto` is the first accelerator that is there, or else the CPU.

    Raises UserError, with the devices that are there, where that one is not.
    """
    accelerators = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    accelerators += ["mps"] if torch.backends.mps.is_available() else []
    there = ["cpu", *accelerators]
    wanted = {"auto": (accelerators or there)[0], "cuda": "cuda:0"}.get(name, name)
    if wanted not in there:
        raise UserError(f"params.yaml: train.device: must be there, got {name}; on this machine: {', '.join(there)}")
    return torch.device(wanted)
