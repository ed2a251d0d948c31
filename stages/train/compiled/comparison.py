"""Compare what a compiled library computes with what the network, the loss and the optimizer compute."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.train.compiled.calls import Calls
from stages.train.compiled.vectors import Vectors, joined

STATES = 3  # to compare in; one that agrees is enough, since a rounding error at the kink of a ReLU may spoil some
NEARBY = 0.01  # how far their parameters are from the given ones, relatively
TOLERANCE = 1e-4  # relative; rounding causes a hundredth of this
ROUNDING = 1e-6  # relative to the values before the step, allowed in addition


def agree(
    calls: Calls,
    net: nn.Module,
    optimizer: Optimizer,
    loss_function: nn.Module,
    learning: Sequence[str],
    x: Tensor,
    *,
    scale: float = 1.0,
) -> bool:
    """Return whether loss, gradient and step of the library are those of the network at the points x, (n, n_feature).

    They are compared near the present parameters, or near these times `scale`, on copies. The loss is that of made-up
    targets: near the true ones, a trained gradient is mostly rounding errors.
    """
    for seed in range(STATES):
        generator = torch.Generator().manual_seed(seed)
        nearby, its_optimizer = copy.deepcopy((net, optimizer))
        for name, parameter in nearby.named_parameters():
            if name in learning:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.data = scale * parameter.data * (1 + NEARBY * noise)
        for state in (
            its_optimizer.state.values()
        ):  # Vectors has parameters share scalars, which eager steps would count several times
            state.update({name: value.clone() for name, value in state.items() if isinstance(value, Tensor)})
        y = _distant_targets(nearby, x, generator)

        gradient, losses, after = _by_eager(*copy.deepcopy((nearby, its_optimizer)), loss_function, learning, x, y)
        vectors = Vectors(nearby, its_optimizer, learning)
        values, scalars, size = vectors.values.clone(), vectors.scalars.clone(), vectors.size
        ours, our_losses = calls.gradients(vectors, x, y)
        compared = [(ours[:, :size].clone(), gradient, torch.zeros(())), (our_losses, losses, torch.zeros(()))]
        # With equal gradients, equal steps can be expected: Rprop goes by the signs of small ones.
        ours[:, :size] = gradient
        calls.step(vectors, its_optimizer.param_groups[0]["lr"], ours)
        compared += zip(vectors.values[..., :size], after.values[..., :size], values[..., :size], strict=True)
        compared.append((vectors.scalars, after.scalars, scalars))
        if all(_close(*three) for three in compared):
            return True
    return False


def _distant_targets(net: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return targets at x, (n, n_output), that are all far below the predictions of every network."""
    with torch.no_grad():
        prediction = net(x)  # (n, n_output), or (networks, n, n_output)
    lowest = prediction.amin(0) if prediction.dim() > x.dim() else prediction
    return lowest - (1 + prediction.abs().max()) * (0.5 + torch.rand(lowest.shape, generator=generator))


def _by_eager(
    net: nn.Module, optimizer: Optimizer, loss_function: nn.Module, learning: Sequence[str], x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Vectors]:
    """Take an eager step; return its gradient, (networks, size), the losses, (networks,), and what it changed."""
    optimizer.zero_grad()
    losses = loss_function(net(x), y)
    losses.sum().backward()
    gradients = [values.grad for name, values in net.named_parameters() if name in learning]
    gradient = joined([values for values in gradients if values is not None], len(losses.reshape(-1)))
    optimizer.step()
    return gradient, losses.detach().reshape(-1), Vectors(net, optimizer, learning)


def _close(ours: Tensor, theirs: Tensor, before: Tensor) -> bool:
    """Return whether ours equals theirs, up to a small part of the change from `before` and rounding errors.

    If theirs has a value that is not finite, there is nothing to compare with.
    """
    ours, theirs, before = ours.double(), theirs.double(), before.double()
    allowed = TOLERANCE * (theirs - before).norm() + ROUNDING * before.norm()
    return bool((ours - theirs).norm() <= allowed) or not theirs.isfinite().all()
