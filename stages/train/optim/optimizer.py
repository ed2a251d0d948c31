"""The optimizers of torch.optim, by name."""

import copy
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.runtime.eager import without_compiler
from stages.runtime.errors import UserError, one_line
from stages.train.loop import LossFunction, backpropagate
from stages.train.optim.options import Options

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

# How much LBFGS does in one step: bounded, since training can be stopped only between steps.
Count = Annotated[int, Field(gt=0, le=1000)]


class OptimizerOptions(Options):
    """The options of any optimizer, under the names that torch.optim gives them."""

    max_iter: Count | None = Field(None)
    max_eval: Count | None = Field(None)
    history_size: Count | None = Field(None)


def new_optimizer(name: OptimizerName, net: nn.Module, learning_rate: float, options: dict[str, Any]) -> Optimizer:
    """Return the optimizer with that name for the network. Raises whatever torch.optim raises if it refuses."""
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
) -> Optimizer:
    """Take a step with a copy of the network, and return the optimizer that took it.

    Raises UserError if the optimizer refuses its options or the network.
    """
    net = copy.deepcopy(net)
    loss = backpropagate(net, loss_function, x, y)  # an error here is not the optimizer's fault
    try:
        optimizer = new_optimizer(name, net, learning_rate, options)
        optimizer.step(lambda: loss)  # type: ignore[arg-type, return-value]
    except Exception as error:  # each optimizer refuses in its own way
        why = one_line(error)
        raise UserError(
            f"params.yaml: train.optimizer: {name} with options {options} cannot train this network: {why}"
        ) from error
    return optimizer
