"""Train without loading torch.compile.

torch.optim imports torch._dynamo, the front end of torch.compile, to mark what must not be compiled. That import takes
as long as torch itself (1.8 s), longer than the whole lesson, and nothing here is compiled.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch


class _Dynamo(ModuleType):
    """What torch.optim uses of torch._dynamo; a request for anything else puts the real module in this one's place."""

    @staticmethod
    def graph_break() -> None:
        """Do nothing: there is no graph to break."""

    @staticmethod
    def disable(fn: Callable, recursive: bool = True, *, wrapping: bool = True) -> Callable:
        """Return the function itself, since nothing compiles it."""
        return fn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # what the import system asks of every module
            raise AttributeError(name)
        del sys.modules["torch._dynamo"], torch._dynamo
        return getattr(importlib.import_module("torch._dynamo"), name)


def without_compiler() -> None:
    """Keep torch.optim from importing torch._dynamo, unless it is loaded already."""
    if "torch._dynamo" not in sys.modules:
        sys.modules["torch._dynamo"] = torch._dynamo = _Dynamo("torch._dynamo")
