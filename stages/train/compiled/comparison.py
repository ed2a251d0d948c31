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
    Several networks may learn from different points, (networks, n, n_feature).
    """
    for seed in range(STATES):
        generator = torch.Generator().manual_seed(seed)
        nearby, its_optimizer = copy.deepcopy((net, optimizer))
        for parameter in learning_parameters(nearby, learning).values():
            parameter.data = scale * parameter.data * (1 + NEARBY * torch.randn(parameter.shape, generator=generator))
        for state in its_optimizer.state.values():  # parameters may share a scalar, as Vectors has them do
            state.update({name: value.clone() for name, value in state.items() if isinstance(value, Tensor)})
        y = _distant_targets(nearby, x, generator)

        gradient, losses, after = _by_eager(*copy.deepcopy((nearby, its_optimizer)), loss_function, learning, x, y)
        vectors = Vectors(nearby, its_optimizer, learning)
        before = [vector.clone() for vector in vectors.changed]
        computed = _by_loop(
            loop, vectors, its_optimizer.param_groups[0]["lr"], torch.cat([gradient, losses]), x, y, rows
        )

        zero = torch.zeros(())
        our_gradient, our_losses = computed.split([len(gradient), len(losses)])
        compared = [(our_gradient, gradient, zero), (our_losses, losses, zero)]
        compared += zip(vectors.changed, after, before, strict=True)
        if all(_close(*three) for three in compared):
            return True
    return False


def _distant_targets(net: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return targets at x that are all far below the predictions: of every network, if several share x."""
    with torch.no_grad():
        prediction = net(x)  # (n, n_output), or (networks, n, n_output)
    lowest = prediction.amin(0) if prediction.dim() > x.dim() else prediction
    return lowest - (1 + prediction.abs().max()) * (0.5 + torch.rand(lowest.shape, generator=generator))


def _by_eager(
    net: nn.Module, optimizer: Optimizer, loss_function: nn.Module, learning: tuple[str, ...], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Take an eager step; return its gradient in one vector, the losses, and the vectors that it has changed."""
    optimizer.zero_grad()
    losses = loss_function(net(x), y)
    losses.sum().backward()
    gradients = [parameter.grad for parameter in learning_parameters(net, learning).values()]
    gradient = torch.cat([values.reshape(-1) for values in gradients if values is not None])
    optimizer.step()
    return gradient, losses.detach().reshape(-1), Vectors(net, optimizer, learning).changed


def _by_loop(loop: Loop, vectors: Vectors, rate: float, gradient: Tensor, x: Tensor, y: Tensor, rows: int) -> Tensor:
    """Return the gradient that the loop computes, and after it the losses; then take a step with the gradient given.

    With equal gradients, equal steps can be expected: Rprop goes by the signs of values near zero.
    """
    steps, rates = tables.cut(x.shape[-2], rows, one_batch=True)
    losses = torch.empty(len(steps), *vectors.each)
    rates[:, 0] = rate
    steps[:, 2] = 0  # accumulate the gradient, without a step
    loop([losses, *vectors.all, steps, rates, x, y])
    computed = vectors.gradient.clone()
    vectors.gradient.copy_(gradient)
    steps[0] = torch.tensor([0, rows, 1])  # a step, with no more points
    loop([losses[:1], *vectors.all, steps[:1], rates[:1], x, y])
    return computed


def _close(ours: Tensor, theirs: Tensor, before: Tensor) -> bool:
    """Return whether ours equals theirs, up to a small part of the change from `before` and rounding errors.

    Where theirs is not finite, there is nothing to compare.
    """
    ours, theirs, before = ours.double(), theirs.double(), before.double()
    allowed = TOLERANCE * (theirs - before).norm() + ROUNDING * before.norm()
    return bool((ours - theirs).norm() <= allowed) or not theirs.isfinite().all()
