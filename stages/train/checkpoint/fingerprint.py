"""What decides which bits a training computes."""

import platform
import re
import sys
from pathlib import Path

import torch

from stages.network import Network
from stages.runtime import files
from stages.train.ranks import Ranks
from stages.train.settings import Train


def of_training(kernels: str, network: Network, train: Train) -> dict[str, str]:
    """Return what is trained, by name: params, data, code and torch. It must be the same on all ranks.

    The number of epochs is in it only where the schedule depends on it: otherwise the first epochs are the same for
    any number.
    """
    decisive = train.model_dump(exclude={"launcher", "epochs"}) | {"schedule_options": train.schedule_options_in_full()}
    sections = {"network": network.model_dump(), "train": decisive}
    modules = [
        getattr(module, "__file__", None)
        for name, module in sys.modules.items()
        if name.startswith(("stages.", "__main__"))
    ]
    sources = Path(__file__).parents[1]
    own = map(str, [*sources.rglob("*.py"), *sources.rglob("*.cpp")])  # also those that are imported later
    code = sorted({*own, *filter(None, modules)})
    return {
        "kernels": kernels,
        **{f"{name}.{key}": repr(value) for name, section in sections.items() for key, value in section.items()},
        "data/train.pt": files.digest_when_read("data/train.pt"),
        "code": " ".join(map(files.digest_when_read, code)),
        "torch": str(torch.__version__),
    }


def of_machine(kernels: str, steps: str, ranks: Ranks) -> dict[str, str]:
    """Return where it is trained, by name. Eager steps with portable kernels give the same bits on any processor."""
    processor = "any" if (kernels, steps) == ("portable", "eager") else processor_model()
    return {
        "processor": f"{processor}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        "number of ranks": f"{ranks.size} on {ranks.device.type}",
    }


def processor_model() -> str:
    """Return the model and the instruction sets of the processor, by which libraries choose their kernels."""
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return platform.processor()
    return " ".join(sorted(set(re.findall(r"(?m)^(?:model name|flags)\s*: (.*)$", described))))
