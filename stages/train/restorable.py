"""Refuse a network that could not be restored, or whose styles differ, before it is trained for hours."""

import copy

import torch
from torch import Tensor, nn

from stages import network
from stages.models import Blueprint
from stages.runtime.errors import UserError
from stages.runtime.outline import fill, match, parts, saved

PATH = "stages/network.py"


def require_restorable(net: nn.Module, blueprint: Blueprint, x: Tensor) -> None:
    """Save and restore a network both ways, in memory, so that one that cannot be restored is not trained for hours.

    x is (n, n_feature). Raises UserError if a restored network is refused or predicts otherwise, or if another style is
    another network, and what torch.save raises where the network cannot be saved.
    """
    used = copy.deepcopy(net)
    with torch.no_grad():
        used(x)  # in training mode, which may change it
    whole, twin = blueprint.build(), blueprint.build()
    for restored, form, expected in ((whole, used, whole), (twin, used.state_dict(), twin.state_dict())):
        try:
            _, difference = match(parts(saved(form)), [expected])
            if not difference:
                fill(restored, parts(saved(form), "cpu"))
        except (KeyError, ValueError):
            difference = "it holds what a model file cannot, such as a NumPy number"
        if difference:
            remedy = "keep what changes in parameters and buffers"
            raise UserError(f"{PATH}: cannot be restored as it is after use: {difference}: {remedy}")
    before = torch.get_rng_state()
    predictions = [network.predict(same, x) for same in (used, whole, twin)]
    drew = not torch.equal(torch.get_rng_state(), before)
    if drew or not all(prediction.equal(predictions[0]) for prediction in predictions):
        raise UserError(
            f"{PATH}: the network predicts differently once it is restored: use parameters and persistent buffers for "
            "what it needs, and no random numbers in evaluation mode"
        )
    own, *others = blueprint.in_all_styles()
    for other in others:
        if difference := style_difference(twin, blueprint.in_style(other).build(), x):
            raise UserError(
                f"{PATH}: the styles {own} and {other} must be the same network, but {difference}: "
                f"change {other} too, or remove it from STYLES and from the choices of network.style"
            )


def style_difference(net: nn.Module, other: nn.Module, x: Tensor) -> str:
    """Return how another style of a network differs in its tensors or, with equal ones, in its predictions for x.

    It is "" if it does not. x is (n, n_feature). The tensors of the network are loaded into the other.
    """
    _, difference = match(parts(saved(net.state_dict())), [other.state_dict()])
    if difference:
        return difference
    other.load_state_dict(net.state_dict())
    for mode in ("evaluation", "training"):
        predictions: list[Tensor] = []
        for style in map(copy.deepcopy, (net, other)):
            with torch.random.fork_rng(devices=()), torch.no_grad():  # Dropout drops the same in both
                predictions.append(style.train(mode == "training")(x))
        first, second = predictions
        if not torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True):  # roundings may differ
            return f"with equal parameters they predict differently in {mode} mode"
    return ""
