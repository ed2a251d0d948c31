"""The parameters and the optimizer's state as vectors, which the compiled loop changes in place."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.train.compiled.recipe import dimension_of_networks, fixed_tensors, learning_parameters


class Vectors:
    """Vectors of the named parameters and of each entry of the optimizer's state, which become views of them.

    What the optimizer keeps as a scalar for each parameter, such as the number of steps, becomes one scalar for all.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, learning: tuple[str, ...]) -> None:
        parameters = list(learning_parameters(net, learning).values())
        states = [optimizer.state[parameter] for parameter in parameters]
        names = [name for name, value in states[0].items() if isinstance(value, Tensor)]
        self.parameters, views = _joined([parameter.data for parameter in parameters])
        for parameter, view in zip(parameters, views, strict=True):
            parameter.data = view
        joined = {name: _joined([state[name] for state in states]) for name in names}
        for name, (_, views) in joined.items():
            for state, view in zip(states, views, strict=True):
                state[name] = view
        self.scalars = {name: vector.dim() == 0 for name, (vector, _) in joined.items()}
        self.each = dimension_of_networks(net)  # the shape of a loss
        self.gradient = torch.zeros(len(self.parameters) + math.prod(self.each))  # and after it, the loss
        self.changed = [self.parameters, *(vector for vector, _ in joined.values())]  # by a step
        self.all = [self.gradient, *self.changed, *fixed_tensors(net, learning).values()]


def _joined(values: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the values in one vector, and their views of it; of scalars, the first, for all."""
    if all(value.dim() == 0 for value in values):
        return values[0], [values[0]] * len(values)
    vector = torch.cat([value.reshape(-1) for value in values])
    parts = vector.split([value.numel() for value in values])
    return vector, [part.view_as(value) for part, value in zip(parts, values, strict=True)]
