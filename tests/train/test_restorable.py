"""Networks that could not be restored, or whose styles differ."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages import models, network
from stages.models import Blueprint
from stages.network import Net, Network
from stages.runtime.errors import UserError
from stages.train.restorable import require_restorable, style_difference

SEQUENTIAL, MODULE = (Blueprint(Network(style=style, hidden=10), 2, 3) for style in ("sequential", "module"))
X = torch.rand(16, 2)


class Deep(nn.Module):
    """Another network, with buffers and dropout."""

    def __init__(self, n_feature: int, n_hidden: int, n_output: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(n_feature, n_hidden), nn.BatchNorm1d(n_hidden), nn.Dropout(0.5))
        self.predict = nn.Linear(n_hidden, n_output)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.first(x))


def deep_sequential(*sizes: int) -> nn.Sequential:
    net = Deep(*sizes)
    return nn.Sequential(OrderedDict(first=net.first, predict=net.predict))


class Smooth(Net):
    """The network with another activation, which its parameters do not show."""

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.hidden(x).tanh())


class Dropping(Net):
    """The network with dropout, which its predictions do not show."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, training=self.training))


EDITS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "layers": (Deep, "hidden.weight is missing instead of (10, 2)"),
    "activation": (Smooth, "with equal parameters they predict differently in evaluation mode"),
    "dropout": (Dropping, "with equal parameters they predict differently in training mode"),
}


@pytest.mark.parametrize("name", EDITS)
def test_styles_that_are_not_the_same_network_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    edited, words = EDITS[name]
    monkeypatch.setitem(network.STYLES, "module", edited)
    with pytest.raises(UserError) as raised:
        require_restorable(MODULE.build(), MODULE, X)
    assert str(raised.value) == (
        f"stages/network.py: the styles module and sequential must be the same network, but {words}: "
        "change sequential too, or remove it from STYLES and from the choices of network.style"
    )
    with pytest.raises(UserError, match="the styles sequential and module must be the same network"):
        require_restorable(SEQUENTIAL.build(), SEQUENTIAL, X)


def test_one_style_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(network, "STYLES", {"module": Smooth})
    net = MODULE.build()
    require_restorable(net, MODULE, X)
    models.save_net("net.pkl", net)
    models.save_params("net_params.pkl", net)
    for path in ("net.pkl", "net_params.pkl"):
        assert torch.equal(models.load(path)(X), net(X))


def test_the_same_network_in_both_styles_passes_and_no_random_number_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Deep, "sequential": deep_sequential})
    before = torch.get_rng_state()
    assert style_difference(MODULE.build(), SEQUENTIAL.build(), X) == ""
    assert torch.equal(torch.get_rng_state(), before)
    require_restorable(MODULE.build(), MODULE, X)


class Numeric(Net):
    """Holds a NumPy number, which a model file cannot."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.number = np.float64(1)


class Nameless(Net):
    """Holds a function that has no name to pickle it by."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.function = lambda x: x


class Counting(Net):
    """Keeps, outside its buffers, what a new network does not."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class AlwaysDropping(Net):
    """The network with dropout in evaluation mode, too, which hardly ever shows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, 1e-7))


class Forgetful(Net):
    """Computes with a random buffer that is not saved."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.scale: Tensor
        self.register_buffer("scale", torch.rand(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale)


DIFFERENT = "the network predicts differently once it is restored: use parameters and persistent"


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            Numeric,
            "cannot be restored as it is after use: it holds what a model file cannot, such as a NumPy number: keep",
        ),
        (Counting, "cannot be restored as it is after use: calls is 1 instead of missing; its state dict"),
        (AlwaysDropping, DIFFERENT),
        (Forgetful, DIFFERENT),
    ],
)
def test_a_network_that_could_not_be_restored_is_refused(
    net: type[Net], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": net})
    with pytest.raises(UserError, match=f"^stages/network.py: {message}"):
        require_restorable(MODULE.build(seed=1), MODULE, X)


def test_a_network_that_cannot_be_saved_keeps_the_error_of_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Nameless})
    with pytest.raises(Exception, match="Can't pickle|Can't get local object"):
        require_restorable(MODULE.build(), MODULE, X)
