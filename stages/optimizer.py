"""The optimizers of torch.optim, by name."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from stages.eager import without_compiler

NAMES = tuple(
    name
    for name, member in sorted(vars(torch.optim).items())
    if isinstance(member, type) and issubclass(member, Optimizer) and member is not Optimizer
)


def build(name: str, parameters: Iterable[Parameter], learning_rate: float, options: dict[str, Any]) -> Optimizer:
    """Return the optimizer of that name. Raises whatever torch.optim does where it refuses its options."""
    without_compiler()
    return getattr(torch.optim, name)(parameters, lr=learning_rate, **options)
