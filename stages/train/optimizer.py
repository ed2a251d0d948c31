"""The optimizers of torch.optim, by name."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.errors import UserError
from stages.train.eager import without_compiler
from stages.train.loop import LossFunction, backpropagate

OptimizerName = Literal[
    "ASGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "LBFGS",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
    "SparseAdam",
]


def new_optimizer(name: OptimizerName, net: nn.Module, learning_rate: float, options: dict[str, Any]) -> Optimizer:
    """Return the optimizer of that name for the network. Raises whatever torch.optim does where it refuses."""
    without_compiler()
    return getattr(torch.optim, name)(net.parameters(), lr=learning_rate, **options)


def rehearse(
    name: OptimizerName,
    net: nn.Module,
    learning_rate: float,
    options: dict[str, Any],
    loss_function: LossFunction,
    x: Tensor,
    y: Tensor,
) -> None:
    """Take a step with a copy of the network. Raises UserError where the optimizer refuses its options or the net."""
    net = copy.deepcopy(net)
    loss = backpropagate(net, loss_function, x, y)  # what goes wrong here is no fault of the optimizer
    try:
        new_optimizer(name, net, learning_rate, options).step(lambda: loss)  # type: ignore[arg-type, return-value]
    except Exception as error:  # each optimizer has a way of its own to refuse
        why = " ".join(str(error).split())
        raise UserError(
            f"params.yaml: train.optimizer: {name} with options {options} cannot train this network: {why}"
        ) from error
