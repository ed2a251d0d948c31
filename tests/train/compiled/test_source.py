"""Which networks can be written in C++, and that the code computes what they compute."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.runtime.errors import UserError
from tests.train.compiled.test_steps import both, cache

pytestmark = pytest.mark.slow  # it compiles again and again

__all__ = ["cache"]

ACTIVATIONS = [
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.LogSigmoid),
    *(nn.Mish, nn.PReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh),
    nn.Tanhshrink,
]


class All(nn.Module):
    """A network that adds up those of many activations."""

    def __init__(self, activations: list[Any]) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, 6)
        self.activations = nn.ModuleList(activation() for activation in activations)
        self.predict = nn.ModuleList(nn.Linear(6, 2) for _ in activations)

    def forward(self, x: Tensor) -> Tensor:
        hidden = 2 * self.hidden(x)
        pairs = zip(self.activations, self.predict, strict=True)
        return torch.stack([predict(activation(hidden)) for activation, predict in pairs]).sum(0)


def learns_the_same(net: nn.Module) -> None:
    ours, theirs = both((3, 6, 2), net=net, n=70, size=30, name="Adam", learning_rate=0.003, epochs=3)
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_the_activations_of_torch_are_compiled() -> None:
    torch.manual_seed(1)
    learns_the_same(All(ACTIVATIONS))


class Function(nn.Module):
    """A network with a function between two linear layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.hidden, self.predict, self.function = nn.Linear(3, 6), nn.Linear(6, 2), function

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.function(self.hidden(x)))


TABLE = torch.linspace(-1, 1, 36).view(6, 6)


def changed_in_place(values: Tensor) -> Tensor:
    doubled = F.relu(values * 2, inplace=True) * 2
    doubled += values
    return doubled


def sines(values: Tensor) -> Tensor:
    for _ in range(200):  # more operators than Python's calls go deep
        values = (values * 0.99).sin()
    return values


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.layer_norm(x, (6,)),
        lambda x: F.softmax(x, -1) * x.std(-1, keepdim=True),
        lambda x: x @ TABLE + x[:, None, :].bmm(TABLE.expand(len(x), 6, 6))[:, 0],
        lambda x: torch.cat([x[:, 4:], x[:, 0:1].exp(), x[:, 1:4] ** 3], dim=1),
        lambda x: torch.stack(x.unbind(1)[::-1], dim=1) + x.select(1, 2)[:, None],
        lambda x: torch.where(x.abs() > 0.5, x.clamp(-1, 1), x.square()) / (1 + x.amax(1, keepdim=True).abs()),
        lambda x: (x.view(-1, 2, 3).transpose(1, 2).reshape(-1, 6) * x).cos() + x.mean(1, keepdim=True),
        lambda x: torch.einsum("ni,nj->nij", x, x).sum(1) + (x.double() * 2).float(),
        changed_in_place,
        lambda x: (x * torch.arange(6)).round() + x ** torch.arange(1, 7) / 100 + x.atan2(x + 9),
        lambda x: torch.cat([torch.empty(0), *x.chunk(2, dim=1)[::-1]], dim=1) + x.split([1, 5], dim=1)[0],
        lambda x: torch.stack([x[:, index] for index in range(6)]).T * (x > 0).sum(1, keepdim=True),
        lambda x: torch.lerp(x, x.exp(), 0.3) + torch.addcmul(x, x, x, value=0.1) + x.amin(1, keepdim=True),
        sines,
        lambda x: F.normalize(x, dim=1) + torch.logsumexp(x, 1, keepdim=True) + F.rms_norm(x, (6,)),
    ],
)
def test_many_functions_are_compiled(function: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(2)
    learns_the_same(Function(function))


class Shared(nn.Module):
    """A network that uses a layer twice, scales another's weights, and passes its input by."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(3, 6), nn.Linear(6, 6)
        self.leave = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.again(torch.tanh(self.again(torch.tanh(self.enter(x))))))
        weight = self.leave.weight / self.leave.weight.norm(dim=1, keepdim=True)
        return F.linear(torch.cat([hidden, x], dim=1), weight, self.leave.bias)


def test_layers_that_are_shared_or_normalized_are_compiled() -> None:
    torch.manual_seed(4)
    learns_the_same(Shared())


def changed_in_part(values: Tensor) -> Tensor:
    values = values * 1
    part = values[:, :2]
    part.mul_(2)
    return values


def changed_constant(values: Tensor) -> Tensor:
    constant = torch.zeros(len(values), 6)
    constant[:, 0] = values[:, 0] * 1e-5
    return values + constant


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda x: F.conv1d(x[:, None], torch.ones(1, 1, 3), padding=1)[:, 0], "convolution"),
        (lambda x: x.sort(1).values, "sort"),
        (lambda x: torch.div(x, 0.3, rounding_mode="floor") + x, "div with rounding_mode"),
        (changed_in_part, "a change in place of a part of a tensor"),
        (lambda x: x.bfloat16().float(), "values of torch.bfloat16"),
        (changed_constant, "a change in place of a part of a tensor"),
        (lambda x: x.prod(dim=1, keepdim=True) * x, "prod"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(function: Callable[[Tensor], Tensor], what: str) -> None:
    with pytest.raises(UserError) as caught:
        learns_the_same(Function(function))
    why = f"cannot train this network with Adam, since it computes {what}"
    assert re.fullmatch(f"params.yaml: train.steps: compiled steps {why}: use eager", str(caught.value))


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x / (1 + x.std(0)), ".*division by zero"),
        (lambda x: x.unsqueeze(2).squeeze(), ".*"),
    ],
)
def test_networks_that_stumble_over_a_single_point_are_refused_in_one_line(
    function: Callable[[Tensor], Tensor], why: str
) -> None:
    with pytest.raises(UserError) as caught:
        learns_the_same(Function(function))
    why = f"cannot train this network, which fails with a single point: {why}"
    assert re.fullmatch(f"params.yaml: train.steps: compiled steps {why}: use eager", str(caught.value))


class Transposed(nn.Module):
    """A network whose predictions are not contiguous, with a buffer in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.predict = nn.Linear(3, 6), nn.Parameter(torch.randn(2, 6))
        self.scale: Tensor
        self.register_buffer("scale", torch.full((6,), 0.1).double())

    def forward(self, x: Tensor) -> Tensor:
        return (self.predict @ (torch.relu(self.hidden(x)) * self.scale.float()).T).T


def test_predictions_that_are_not_contiguous_are_no_obstacle() -> None:
    torch.manual_seed(5)
    learns_the_same(Transposed())
