"""Find out what the layers of a network, such as BatchNorm and Dropout, demand of its training."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from stages.ensemble import Stack, seeds_of
from stages.models import Blueprint
from stages.network import predict
from stages.runtime.errors import UserError, counted, one_line
from stages.train.batches import Batches

POINTS = 16  # that networks side by side must predict as each alone does


class Demands(NamedTuple):
    """What the layers of a network demand of its training."""

    whole_batches: tuple[str, ...] = ()  # layers that compute with all points of a batch, as `norm (BatchNorm1d)`
    seeds: bool = False  # whether layers draw random numbers, as Dropout does


def examine(net: nn.Module, x: Tensor, y: Tensor) -> Demands:
    """Return what the network's layers demand; try them on the first of the points x, (n, n_feature), on the CPU.

    Layers that keep something of a batch in a buffer compute with whole batches. Raises UserError if predictions have
    not the shape of y, (n, n_output), since the loss would broadcast them, or if they depend on each other.
    """
    x, y = (values[:1].repeat(2, 1) for values in (x, y))  # two points: BatchNorm refuses a single one
    prediction = predict(net, x)
    got = _kind(prediction) if isinstance(prediction, Tensor) else type(prediction).__name__
    if got != _kind(y):
        raise UserError(f"stages/network.py: must predict {_kind(y)} for x of {_kind(x)}, got {got}")

    trial, generator = copy.deepcopy(net), torch.get_rng_state()
    with torch.no_grad():
        trial(x)
    before, after = dict(net.named_buffers()), dict(trial.named_buffers())
    changed = {name.rpartition(".")[0] for name, values in after.items() if not values.equal(before[name])}
    whole_batches = []
    for name, layer in net.named_modules():
        described = f"{name} ({type(layer).__name__})"
        if isinstance(layer, _NormBase) and not layer.track_running_stats:
            raise UserError(
                f"stages/network.py: {described} must have track_running_stats=True: without it, what the network "
                "predicts for a point depends on the other points in the batch"
            )
        if name in changed or isinstance(layer, _NormBase):
            whole_batches.append(described)
    return Demands(tuple(whole_batches), seeds=not torch.equal(generator, torch.get_rng_state()))


def ensure_independent(stack: Stack, one: Blueprint, seed: int, x: Tensor, demands: Demands) -> None:
    """Raise UserError unless networks side by side predict what each predicts alone, for the first of the points x.

    x: (n, n_feature); one: the blueprint of one of the networks; seed: that of the first.
    """
    if demands.whole_batches:
        raise UserError(
            f"params.yaml: train.networks: must be 1, since {demands.whole_batches[0]} computes with whole batches"
        )
    x = x[:POINTS]
    alone = torch.stack([predict(one.build(own), x) for own in seeds_of(seed, stack.networks)])
    try:
        together = predict(stack, x)
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            stack(x)  # in training mode
    except Exception as error:  # vmap refuses in many ways
        why = one_line(error)
    else:
        if torch.allclose(alone, together, rtol=1e-3, atol=1e-5):  # roundings differ
            return
        why = "together they predict something else than each does alone"
    raise UserError(f"params.yaml: train.networks: must be 1, since networks like this cannot be stacked: {why}")


def ensure_whole_batches(demands: Demands, batches: Batches) -> None:
    """Raise UserError if layers demand whole batches, of two points at least, and would not get them."""
    if not demands.whole_batches:
        return
    layer, n = demands.whole_batches[0], batches.points.n
    size = min(batches.size or n, n)
    if batches.ranks.size > 1:
        raise UserError(f"params.yaml: train.launcher: must start one rank, since {layer} computes with whole batches")
    if batches.micro_size < size:
        raise UserError(
            f"params.yaml: train.micro_batch_size: must be null or at least {size}, since {layer} computes with "
            f"whole batches, got {batches.micro_size}"
        )
    if 1 in (size, n % size):
        raise UserError(
            f"params.yaml: train.batch_size: batches of {size} out of {counted(n, 'point')} leave a batch of a single "
            f"point, too small for {layer}"
        )


def _kind(values: Tensor) -> str:
    return f"{values.dtype} {tuple(values.shape)}".removeprefix("torch.")
