"""Networks side by side, against each of them alone."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from stages import network
from stages.ensemble import MOST_QUANTILES, Ensemble, Stack, held_out, quantiles, seeds_of, width
from stages.folds import Folds

NETWORKS = 3


class Own(nn.Module):
    """A network of a person's own: the lesson's layers, and whatever else its forward does."""

    def __init__(self, forward: Callable[["Own", Tensor], Tensor]) -> None:
        super().__init__()
        self.hidden, self.predict = nn.Linear(2, 6), nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.rand(6) + 0.5)
        self.register_buffer("shift", torch.rand(6))
        self.of_own = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.of_own(self, x)


def residual(net: Own, x: Tensor) -> Tensor:
    x = F.relu(net.hidden(x))
    return net.predict(x + torch.tanh(x) * 0.5)


BATCHED: dict[str, Callable[[], nn.Module]] = {
    "module": lambda: network.Net(2, 6, 3),
    "sequential": lambda: network.sequential(2, 6, 3),
    "deep": lambda: nn.Sequential(nn.Linear(2, 6), nn.GELU(), nn.Linear(6, 6, bias=False), nn.SiLU(), nn.Linear(6, 3)),
    "residual": lambda: Own(residual),
}
# Each would be wrong if it were computed with tensors that have one more dimension.
NOT_BATCHED: dict[str, Callable[[], nn.Module]] = {
    "layer norm": lambda: nn.Sequential(nn.Linear(2, 6), nn.LayerNorm(6), nn.Linear(6, 3)),
    "a parameter of each neuron": lambda: Own(lambda net, x: net.predict(net.hidden(x) * net.scale)),
    "a buffer of each neuron": lambda: Own(lambda net, x: net.predict(torch.tanh(net.hidden(x) + net.shift))),
    "slopes": lambda: nn.Sequential(nn.Linear(2, 6), nn.PReLU(6), nn.Linear(6, 3)),
    "a transposed product": lambda: Own(lambda net, x: net.predict(x @ net.hidden.weight.T)),
    "part of a weight": lambda: Own(lambda net, x: net.predict(F.linear(x, net.hidden.weight[:6]))),
    "named arguments": lambda: Own(lambda net, x: net.predict(F.linear(input=x, weight=net.hidden.weight))),
    "the number of rows": lambda: Own(lambda net, x: net.predict(net.hidden(x)) / (1 + 0 * len(x)) + 0.1 * x.dim()),
    "a column": lambda: Own(lambda net, x: net.predict(net.hidden(x)) + x[:, :1]),
    "features side by side": lambda: Own(lambda net, x: net.predict(torch.cat([net.hidden(x)[:, :4], x], 1))),
    "softmax": lambda: Own(lambda net, x: net.predict(F.softmax(net.hidden(x), dim=1))),
    "a sum over features": lambda: Own(lambda net, x: net.predict(net.hidden(x)) + x.sum(1, keepdim=True)),
    "another shape": lambda: Own(lambda net, x: net.predict(net.hidden(x).view(x.shape[0], -1))),
}


def built(build: Callable[[], nn.Module]) -> list[nn.Module]:
    torch.manual_seed(0)
    return [build() for _ in range(NETWORKS)]


@pytest.mark.parametrize("name", [*BATCHED, *NOT_BATCHED])
@pytest.mark.parametrize("own_points", [True, False])
def test_networks_side_by_side_predict_and_learn_as_each_alone(name: str, own_points: bool) -> None:
    nets = built((BATCHED | NOT_BATCHED)[name])
    stack = Stack(copy.deepcopy(nets), 2)
    assert stack.batched is (name in BATCHED)
    x = torch.randn(NETWORKS, 5, 2) if own_points else torch.randn(5, 2)
    together = stack(x)
    together.square().sum().backward()
    for index, net in enumerate(nets):
        alone = net(x[index] if own_points else x)
        torch.testing.assert_close(together[index], alone)
        alone.square().sum().backward()
        for stacked, values in zip(stack.net.parameters(), net.parameters(), strict=True):
            assert (stacked.grad is None) is (values.grad is None)
            if stacked.grad is not None:
                torch.testing.assert_close(stacked.grad[index], values.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", [nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5), nn.LayerNorm(6))])
def test_each_network_drops_different_values(more: nn.Module) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 6), more, nn.Linear(6, 3))
    stack = Stack([copy.deepcopy(net) for _ in range(NETWORKS)], 2)
    assert stack.batched is isinstance(more, nn.Dropout)
    first, second, _ = stack(torch.ones(20, 2))
    assert not torch.equal(first, second)
    first, second, _ = stack.eval()(torch.ones(20, 2))
    assert torch.equal(first, second)


def test_stacking_draws_no_random_numbers_and_leaves_the_networks_in_training_mode() -> None:
    nets = built(lambda: nn.Sequential(nn.Linear(2, 6), nn.Dropout(), nn.Linear(6, 3)))
    before = torch.get_rng_state()
    assert Stack(nets, 2).training
    assert torch.equal(torch.get_rng_state(), before)


def test_an_ensemble_predicts_the_mean_of_its_networks() -> None:
    nets = built(BATCHED["module"])
    x = torch.randn(5, 2)
    expected = torch.stack([net(x) for net in nets]).mean(dim=0)
    torch.testing.assert_close(Ensemble(Stack(copy.deepcopy(nets), 2), 3)(x), expected)


def test_the_first_seed_is_the_seed_and_the_others_do_not_depend_on_how_many_there_are() -> None:
    assert seeds_of(11, 1) == [11]
    assert seeds_of(11, 20)[:5] == seeds_of(11, 5)
    assert seeds_of(11, 5)[0] == 11
    assert len({seed for first in range(50) for seed in seeds_of(first, 100)}) == 5000


def test_a_stack_is_as_wide_as_all_its_networks() -> None:
    for name in ("module", "sequential"):
        assert width(BATCHED[name]()) == 2 + 6 + 3
        assert width(Ensemble(Stack(built(BATCHED[name]), 2), 3)) == NETWORKS * (2 + 6 + 3)


@pytest.mark.parametrize("n", [1, 2, 9, 10, 99, MOST_QUANTILES, MOST_QUANTILES + 1, 4321])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_a_half_width_is_the_smallest_error_that_covers_the_level_among_one_more(n: int, level: float) -> None:
    errors = torch.rand(n, 2, generator=torch.Generator().manual_seed(n))
    ensemble = Ensemble(Stack(built(BATCHED["module"]), 2), 2)
    ensemble.half_widths = quantiles(errors)
    number = next((k for k in range(1, n + 1) if 100 * k >= round(100 * level) * (n + 1)), None)
    if number is None:
        rule = rf"^must be above 0 and at most 0\.\d+, by the number of rows held back, got {level:g}$"
        with pytest.raises(ValueError, match=rule):
            ensemble.half_width(level)
        return
    ordered = errors.sort(dim=0).values
    if n <= MOST_QUANTILES:
        assert torch.equal(ensemble.half_width(level), ordered[number - 1])
    else:  # one of MOST_QUANTILES, which stand for n: a little wider at most
        last = min(n, number + -(-n // MOST_QUANTILES))
        assert (ensemble.half_width(level) >= ordered[number - 1]).all()
        assert (ensemble.half_width(level) <= ordered[last - 1]).all()


@pytest.mark.parametrize("level", [0, 1, -0.5, 1.5])
def test_no_half_width_is_certain_to_cover(level: float) -> None:
    ensemble = Ensemble(Stack(built(BATCHED["module"]), 2), 2)
    ensemble.half_widths = quantiles(torch.rand(5000, 2))
    with pytest.raises(ValueError, match="^must be above 0 and at most 0.999, by "):
        ensemble.half_width(level)


def test_intervals_cover_new_errors_as_often_as_they_say() -> None:
    generator, level, runs = torch.Generator().manual_seed(0), 0.8, 4000
    covered = 0
    ensemble = Ensemble(Stack(built(BATCHED["module"]), 2), 1)
    for _ in range(runs):
        errors = torch.randn(24, 1, generator=generator).abs()
        ensemble.half_widths = quantiles(errors[:23])
        covered += bool(errors[23] <= ensemble.half_width(level))
    # 20 of 24 ranks: 0.833 is what is promised, at least 0.8; four standard deviations of the count are 0.024
    assert covered / runs == pytest.approx(20 / 24, abs=0.024)


@pytest.mark.parametrize(("networks", "size"), [(5, 2), (3, 4), (8, 3)])  # each row once; not all; some repeatedly
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_held_out_predictions_are_those_of_the_networks_that_held_the_row_back(
    networks: int, size: int, rows: int
) -> None:
    held_back = Folds(10, size, networks, 3).held_back()
    x = torch.randn(10, 2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    nets = [network.Net(2, 6, 3) for _ in range(networks)]
    stack = Stack(copy.deepcopy(nets), 2).requires_grad_(requires_grad=False)
    known, predictions = held_out(stack, x, held_back, rows)
    expected = {}
    for row in range(10):
        own = [net(x[row]) for net, back in zip(nets, held_back.tolist(), strict=True) if row in back]
        if own:
            expected[row] = torch.stack(own).mean(dim=0)
    assert known.tolist() == list(expected)
    torch.testing.assert_close(predictions, torch.stack([*expected.values()]).detach())


def test_parameters_of_one_network_are_slices_of_the_stack() -> None:
    nets = built(BATCHED["module"])
    stack = Stack(copy.deepcopy(nets), 2)
    x = torch.randn(5, 2)
    for index, net in enumerate(nets):
        slices = {name: values[index] for name, values in stack.net.state_dict().items()}
        assert torch.equal(functional_call(net, slices, (x,)), net(x))
