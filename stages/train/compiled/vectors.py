"""The parameters and the optimizer's state where the compiled loop changes them in place."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.ensemble import Stack

LANES = 32  # as in loop.cpp


class Vectors:
    """Vectors of each network's parameters, and of each entry of the optimizer's state.

    They are made of the tensors of the network and the optimizer, which become views of them.

    What the optimizer keeps as a scalar for each parameter, such as the number of steps, becomes one scalar for all.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, learning: Sequence[str]) -> None:
        """learning: the names of the parameters that have a gradient."""
        self.networks = networks_in(net)
        named = learning_tensors(net, learning)
        states = [optimizer.state[parameter] for parameter in named.values()]
        entries = {name: value for name, value in states[0].items() if isinstance(value, Tensor)}
        self.is_scalar = {name: value.dim() == 0 for name, value in entries.items()}
        vectors = [name for name, scalar in self.is_scalar.items() if not scalar]
        self.size = sum(map(Tensor.numel, named.values())) // self.networks  # of the parameters
        # (parameters and entries, networks, padded size)
        self.values = torch.zeros(1 + len(vectors), self.networks, padded(self.size))
        for parameter, view in self._views(0, named):
            parameter.data = view.copy_(parameter.data)
        for index, name in enumerate(vectors, start=1):
            for (_, view), state in zip(self._views(index, named), states, strict=True):
                state[name] = view.copy_(state[name])
        scalars = [name for name, scalar in self.is_scalar.items() if scalar]
        self.scalars = torch.empty(self.networks, len(scalars), dtype=torch.float64)  # the same for all networks
        for index, name in enumerate(scalars):
            self.scalars[:, index] = entries[name]
            for state in states:
                state[name] = self.scalars[0, index]
        self.fixed = joined(list(fixed_tensors(net, learning).values()), self.networks)

    def _views(self, index: int, named: Mapping[str, Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each parameter and its part of one of the vectors, in its shape."""
        begin = 0
        for parameter in named.values():
            count = parameter.numel() // self.networks
            yield parameter, self.values[index, :, begin : begin + count].view(parameter.shape)
            begin += count


def padded(size: int) -> int:
    """Return how many floats a vector has in memory: a multiple of LANES."""
    return -(-size // LANES) * LANES


def networks_in(net: nn.Module) -> int:
    """Return how many networks are side by side."""
    return net.networks if isinstance(net, Stack) else 1


def joined(tensors: Sequence[Tensor], networks: int) -> Tensor:
    """Return the tensors of each network as a vector, (networks, size), in memory of its own."""
    vectors = [torch.zeros(networks, 0), *(values.detach().reshape(networks, -1).float() for values in tensors)]
    return torch.cat(vectors, dim=1)


def learning_tensors(net: nn.Module, learning: Sequence[str]) -> dict[str, Tensor]:
    """Return the parameters that learn, by name."""
    return {name: tensor for name, tensor in net.named_parameters() if name in learning}


def fixed_tensors(net: nn.Module, learning: Sequence[str]) -> dict[str, Tensor]:
    """Return the buffers and the parameters that do not learn, by name."""
    tensors = {name: tensor for name, tensor in net.named_parameters() if name not in learning}
    return tensors | dict(net.named_buffers())
