"""The optimizers of torch.optim, by name."""

import copy
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.errors import UserError, one_line
from stages.params import Section, must_be
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


OptionName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_]{1,50}$"), must_be("a name of at most 50 letters, digits and _")
]
Scalar = (
    bool
    | Annotated[int, Field(ge=-(10**15), le=10**15)]
    | Annotated[float, Field(ge=-1e15, le=1e15)]
    | Annotated[str, Field(pattern=r"^[ -~]{0,50}$")]
    | None
)
Option = Annotated[
    Scalar | list[Scalar], must_be("null, a boolean, a number within ±1e15, a short text, or a list of these")
]
# How much LBFGS does in one step: bounded, since training can be stopped only between steps.
Count = Annotated[int, Field(gt=0, le=1000)]


class OptimizerOptions(Section, extra="allow"):
    """The options of any optimizer, under the names that torch.optim gives them."""

    __pydantic_extra__: dict[OptionName, Option]
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
) -> None:
    """Take a step with a copy of the network. Raises UserError if the optimizer refuses its options or the network."""
    net = copy.deepcopy(net)
    loss = backpropagate(net, loss_function, x, y)  # an error here is not the optimizer's fault
    try:
        new_optimizer(name, net, learning_rate, options).step(lambda: loss)  # type: ignore[arg-type, return-value]
    except Exception as error:  # each optimizer refuses in its own way
        why = one_line(error)
        raise UserError(
            f"params.yaml: train.optimizer: {name} with options {options} cannot train this network: {why}"
        ) from error
