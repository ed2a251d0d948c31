"""The network: two fully connected layers with a ReLU between, written in both customary ways."""

import math
from collections import OrderedDict
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stages.params import Section


class Network(Section):
    """The section `network` of params.yaml."""

    style: Literal["module", "sequential"]
    hidden: Annotated[int, Field(gt=0)]


class Net(nn.Module):
    """The network as a class of its own."""

    def __init__(self, n_feature: int, n_hidden: int, n_output: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_feature, n_hidden)
        self.predict = nn.Linear(n_hidden, n_output)

    def forward(self, x: Tensor) -> Tensor:
        """Return the predictions, (n, n_output), for x, (n, n_feature)."""
        x = F.relu(self.hidden(x))  # (n, n_hidden)
        return self.predict(x)  # (n, n_output)


def sequential(n_feature: int, n_hidden: int, n_output: int) -> nn.Sequential:
    """Return the same function as a Sequential, its layers named so that a state dict fits either style."""
    return nn.Sequential(
        OrderedDict(
            hidden=nn.Linear(n_feature, n_hidden),
            relu=nn.ReLU(),
            predict=nn.Linear(n_hidden, n_output),
        )
    )


def build(style: str, n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
    """Return the network in the style `module` or `sequential`, on the CPU."""
    return {"module": Net, "sequential": sequential}[style](n_feature, n_hidden, n_output)


@torch.no_grad()
def initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights and biases from U(-1/√fan_in, 1/√fan_in): what nn.Linear does, with a generator of one's own."""
    for layer in (net.hidden, net.predict):
        bound = 1 / math.sqrt(layer.in_features)
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
