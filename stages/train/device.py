"""Choose the device that training runs on."""

import os

import torch

from stages.runtime.errors import UserError


def choose_device(name: str) -> torch.device:
    """Return the device with that name; `auto` is an accelerator if there is one, else the CPU.

    With `cuda` and `auto`, each of several ranks on a machine gets its own GPU.
    Raises UserError, with the devices that are available, if that one is not.
    """
    accelerators = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    accelerators += ["mps"] if torch.backends.mps.is_available() else []
    available = ["cpu", *accelerators]
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    fastest = accelerators or available
    wanted = {"auto": fastest[local_rank % len(fastest)], "cuda": f"cuda:{local_rank}"}.get(name, name)
    if wanted not in available:
        raise UserError(f"params.yaml: train.device: {name} is not available; available: {', '.join(available)}")
    return torch.device(wanted)
