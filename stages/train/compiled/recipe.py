"""What is compiled: a training's network, loss and optimizer, and a digest of all that decides the result."""

import hashlib
import io
import os
import pickle
import platform
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from stages.ensemble import Stack
from stages.train.checkpoint import processor_model
from stages.train.compiled.sources import Module

# These tell the C++ compiler and torch's compiler what to use. The compiling process does not see TORCH*.
VARIABLES = ["ATEN_CPU_CAPABILITY", "CPATH", "CPLUS_INCLUDE_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX", "LIBRARY_PATH"]


class Recipe(NamedTuple):
    """What is trained: all that the compiled loop depends on."""

    net: nn.Module
    learning: tuple[str, ...]  # the names of the parameters that have a gradient
    loss_function: nn.Module
    optimizer: str
    options: Mapping[str, Any]  # of the optimizer, all but its learning rate
    state: Mapping[str, bool]  # what the optimizer keeps for each parameter: whether that is a scalar
    rows: int  # points in a micro-batch
    n_feature: int
    n_output: int
    leading: tuple[int, ...] = ()  # of x and y, before (n, …): (networks,) if these learn from different points

    @property
    def each(self) -> tuple[int, ...]:
        """Return the shape of a loss: (networks,) of several side by side, () of one."""
        return dimension_of_networks(self.net)

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters that learn, by name."""
        return dict(learning_parameters(self.net, self.learning))

    def key(self, modules: list[Module]) -> str:
        """Return a digest of the recipe and of what else decides what it is compiled to: 32 hexadecimal digits.

        `modules` are those that the network needs. The values of parameters and buffers are left out: the loop is given
        them.
        """
        machine = [
            *(torch.__version__, torch.version.git_version, torch.get_num_threads()),
            *(processor_model(), platform.libc_ver(), torch.backends.cpu.get_cpu_capability()),
            *(os.environ.get(name) for name in VARIABLES),
        ]
        written = io.BytesIO()
        _Canonical(written, [*self.net.parameters(), *self.net.buffers()]).dump(tuple(self))
        code = [(module.name, module.digest, module.constants) for module in modules]
        return hashlib.blake2b(repr([machine, code]).encode() + written.getvalue(), digest_size=16).hexdigest()


def dimension_of_networks(net: nn.Module) -> tuple[int, ...]:
    """Return the shape of a loss: (networks,) of several side by side, () of one."""
    return (net.networks,) if isinstance(net, Stack) else ()


def learning_parameters(net: nn.Module, names: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """Return the parameters with these names, by name."""
    return {name: parameter for name, parameter in net.named_parameters() if name in names}


def fixed_tensors(net: nn.Module, learning: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the buffers and the parameters that do not learn, by name."""
    tensors = {name: tensor for name, tensor in net.named_parameters() if name not in learning}
    return {name: tensor.detach().contiguous() for name, tensor in (tensors | dict(net.named_buffers())).items()}


class _Canonical(pickle.Pickler):
    """Writes equal bytes for equal objects in every process; of some tensors, not the values."""

    def __init__(self, file: io.BytesIO, without_values: list[Tensor]) -> None:
        super().__init__(file, protocol=5)
        self.without_values = {id(tensor) for tensor in without_values}

    def persistent_id(self, value: Any) -> Any:
        """Return what stands for a value: a tensor's memory and a set's order differ from process to process."""
        if isinstance(value, Tensor):
            content = b"" if id(value) in self.without_values else value.detach().cpu().contiguous().numpy().tobytes()
            return str(value.dtype), tuple(value.shape), value.stride(), value.requires_grad, content
        if isinstance(value, set | frozenset):
            return sorted(map(repr, value))
        return None
