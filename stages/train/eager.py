"""Train without loading torch.compile.

torch.optim imports torch._dynamo, the front end of torch.compile, to tell it what not to compile. That import takes as
long as torch itself (1.8 s), more than the whole lesson, and nothing here is compiled.
"""

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch


class _Dynamo(ModuleType):
    """What torch.optim asks of torch._dynamo; at any other request the real module takes this one's place."""

    @staticmethod
    def graph_break() -> None:
        """Break no graph: there is none."""

    @staticmethod
    def disable(fn: Callable, recursive: bool = True, *, wrapping: bool = True) -> Callable:
        """Return the function itself, which nothing compiles."""
        return fn

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # what the import system asks of every module
            raise AttributeError(name)
        del sys.modules["torch._dynamo"], torch._dynamo
        return getattr(importlib.import_module("torch._dynamo"), name)


def without_compiler() -> None:
    """Keep torch.optim from importing torch._dynamo, unless that is loaded already."""
    if "torch._dynamo" not in sys.modules:
        sys.modules["torch._dynamo"] = torch._dynamo = _Dynamo("torch._dynamo")
