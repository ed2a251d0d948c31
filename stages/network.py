"""The network: two fully connected layers with a ReLU between them, written in both customary ways."""

from collections import OrderedDict
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stages.runtime.params import Section


class Network(Section):
    """The section `network` of params.yaml."""

    style: Literal["module", "sequential"]
    hidden: Annotated[int, Field(gt=0, le=10**6)]
    standardize: bool = False

    def not_in_tensors(self) -> dict[str, Any]:
        """Return the params that the tensors of a network do not show, such as a dropout rate; the lesson has none."""
        return self.model_dump(mode="json", exclude={"style", "hidden", "standardize"})


class Net(nn.Module):
    """The network as a subclass of nn.Module."""

    def __init__(self, n_feature: int, n_hidden: int, n_output: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(n_feature, n_hidden)
        self.predict = nn.Linear(n_hidden, n_output)

    def forward(self, x: Tensor) -> Tensor:
        """Return the predictions, (n, n_output), for x, (n, n_feature)."""
        x = F.relu(self.hidden(x))  # (n, n_hidden)
        return self.predict(x)  # (n, n_output)


def sequential(n_feature: int, n_hidden: int, n_output: int) -> nn.Sequential:
    """Return the same network as a Sequential, with named layers, so that a state dict fits either style."""
    return nn.Sequential(
        OrderedDict(
            hidden=nn.Linear(n_feature, n_hidden),
            relu=nn.ReLU(),
            predict=nn.Linear(n_hidden, n_output),
        )
    )


@torch.no_grad()
def predict(net: nn.Module, x: Tensor) -> Tensor:
    """Return the predictions, (n, n_output), for x, (n, n_feature), computed in evaluation mode; restore the mode."""
    training = net.training
    net.eval()
    try:
        return net(x)
    finally:
        net.train(training)


STYLES = {"module": Net, "sequential": sequential}


def build(section: Network, n_feature: int, n_output: int, seed: int) -> nn.Module:
    """Return the network that the section describes, on the CPU.

    Its layers draw their first weights as they do after `torch.manual_seed(seed)`: nn.Linear from
    U(-1/√fan_in, 1/√fan_in). torch's global generator is left as it was.
    """
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(seed)
        return STYLES[section.style](n_feature, section.hidden, n_output)
