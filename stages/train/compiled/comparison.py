"""Compare what a compiled loop computes with what the network, the loss and the optimizer compute."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.train.compiled import tables
from stages.train.compiled.recipe import learning_parameters
from stages.train.compiled.vectors import Vectors

STATES = 3  # to compare in; one that agrees is enough, since a rounding error at the kink of a ReLU may spoil some
NEARBY = 0.01  # how far their parameters are from the given ones, relatively
TOLERANCE = 1e-3  # relative; rounding causes a thousandth of this
ROUNDING = 1e-6  # relative to the values before the step, allowed in addition

Loop = Callable[[list[Tensor]], object]


def agree(
    loop: Loop,
    net: nn.Module,
    optimizer: Optimizer,
    loss_function: nn.Module,
    learning: tuple[str, ...],
    x: Tensor,
    rows: int,
    *,
    scale: float = 1.0,
) -> bool:
    """Return whether loss, gradient and step of the loop are those of the network at the points x, (n, n_feature).

    They are compared near the present parameters, or near these times `scale`, on copies. `rows`: points in a
    micro-batch. The loss is that of made-up targets: near the true ones, a trained gradient is mostly rounding errors.
    """
    for seed in range(STATES):
        generator = torch.Generator().manual_seed(seed)
        ours, our_optimizer = copy.deepcopy((net, optimizer))
        for parameter in learning_parameters(ours, learning).values():
            parameter.data = scale * parameter.data * (1 + NEARBY * torch.randn(parameter.shape, generator=generator))
        for state in our_optimizer.state.values():  # parameters may share a scalar, as Vectors has them do
            state.update({name: value.clone() for name, value in state.items() if isinstance(value, Tensor)})
        with torch.no_grad():
            prediction = ours(x)  # (n, n_output)
        distance = (1 + prediction.abs().max()) * (0.5 + torch.rand(prediction.shape, generator=generator))
        y = prediction - distance

        theirs, their_optimizer = copy.deepcopy((ours, our_optimizer))
        their_optimizer.zero_grad()
        loss = loss_function(theirs(x), y)
        loss.backward()
        gradients = [parameter.grad for parameter in learning_parameters(theirs, learning).values()]
        gradient = torch.cat([values.reshape(-1) for values in (*gradients, loss.detach()) if values is not None])
        their_optimizer.step()
        after = Vectors(theirs, their_optimizer, learning).changed

        vectors = Vectors(ours, our_optimizer, learning)
        before = [vector.clone() for vector in vectors.changed]
        steps, rates = tables.cut(len(x), rows, y.shape[1], one_batch=True)
        rates[:, 0] = our_optimizer.param_groups[0]["lr"]
        steps[:, 2] = 0  # accumulate the gradient, without a step
        loop([torch.empty(len(steps)), *vectors.all, steps, rates, x, y])
        computed = vectors.gradient.clone()
        vectors.gradient.copy_(gradient)  # the same for both: Rprop goes by the signs of values near zero
        steps[0] = torch.tensor([0, rows, 1])  # a step, with no more points
        loop([torch.empty(1), *vectors.all, steps[:1], rates[:1], x, y])

        zero = torch.zeros(())
        compared = [(computed[:-1], gradient[:-1], zero), (computed[-1], gradient[-1], zero)]
        compared += zip(vectors.changed, after, before, strict=True)
        if all(_close(*three) for three in compared):
            return True
    return False


def _close(ours: Tensor, theirs: Tensor, before: Tensor) -> bool:
    """Return whether ours equals theirs, up to a small part of the change from `before` and rounding errors.

    Where theirs is not finite, there is nothing to compare.
    """
    ours, theirs, before = ours.double(), theirs.double(), before.double()
    allowed = TOLERANCE * (theirs - before).norm() + ROUNDING * before.norm()
    return bool((ours - theirs).norm() <= allowed) or not theirs.isfinite().all()
