"""Find the layers of a network that restrict how it is trained, such as BatchNorm and Dropout."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from stages.network import predict
from stages.runtime.errors import UserError, counted
from stages.train.batches import Batches


def whole_batch_layers(net: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """Return the layers that compute with all points of a batch at once, such as BatchNorm1d, by name.

    Those are the layers that keep something of a batch, x, (n, n_feature), in a buffer.
    """
    trial, two = copy.deepcopy(net), x[:1].repeat(2, 1)
    before = {name: values.clone() for name, values in trial.named_buffers()}
    with torch.no_grad():
        trial(two)
    changed = {name.rpartition(".")[0] for name, values in trial.named_buffers() if not values.equal(before[name])}
    layers = {name: layer for name, layer in net.named_modules() if name in changed or isinstance(layer, _NormBase)}
    return {f"{name} ({type(layer).__name__})": layer for name, layer in layers.items()}


def check(net: nn.Module, batches: Batches) -> None:
    """Raise UserError where the network cannot be trained with these batches.

    Either a layer that needs whole batches, of two points at least, would not get them; or predictions have not the
    shape of y, and the loss would broadcast them.
    """
    for name, layer in whole_batch_layers(net, batches.x[:1].cpu()).items():
        _check_whole_batches(name, layer, batches)
    x, y = batches.x[:2].cpu(), batches.y[:2].cpu()
    prediction = predict(net, x)
    got = _kind(prediction) if isinstance(prediction, Tensor) else type(prediction).__name__
    if got != _kind(y):
        raise UserError(f"stages/network.py: must predict {_kind(y)} for x of {_kind(x)}, got {got}")


def _check_whole_batches(name: str, layer: nn.Module, batches: Batches) -> None:
    n = len(batches.x)
    size = min(batches.size or n, n)
    if isinstance(layer, _NormBase) and not layer.track_running_stats:
        raise UserError(
            f"stages/network.py: {name} must have track_running_stats=True: without it, what the network predicts for "
            "a point depends on which others it predicts with it"
        )
    if batches.ranks.size > 1:
        raise UserError(f"params.yaml: train.launcher: must start one rank, since {name} computes with whole batches")
    if batches.micro_size < size:
        raise UserError(
            f"params.yaml: train.micro_batch_size: must be null or at least {size}, since {name} computes with "
            f"whole batches, got {batches.micro_size}"
        )
    if 1 in (size, n % size):
        raise UserError(
            f"params.yaml: train.batch_size: batches of {size} out of {counted(n, 'point')} leave a batch of a single "
            f"point, too small for {name}"
        )


def draws_random_numbers(net: nn.Module, x: Tensor) -> bool:
    """Return whether the network draws random numbers in training, as Dropout does; try it on x, (n, n_feature)."""
    generator = torch.random if x.device.type == "cpu" else torch.get_device_module(x.device)
    before = generator.get_rng_state()
    with torch.no_grad():
        copy.deepcopy(net)(x)
    return not torch.equal(before, generator.get_rng_state())


def _kind(values: Tensor) -> str:
    return f"{values.dtype} {tuple(values.shape)}".removeprefix("torch.")
