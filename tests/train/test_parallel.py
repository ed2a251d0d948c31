import copy

import pytest
import torch
from torch import nn

from stages import network
from stages.train.loop import backpropagate
from stages.train.parallel import enough_cores, on_all_ranks
from stages.train.ranks import Ranks
from tests.train.batched import batched

X = torch.linspace(-1, 1, 103).unsqueeze(1)
Y = X**2


@pytest.mark.parametrize("micro_size", [10, 30, 60, 200])  # eleven micro-batches, four, two, one
def test_the_gradients_of_micro_batches_add_up_to_that_of_float64(micro_size: int) -> None:
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=3)
    exact = copy.deepcopy(net).double()
    expected = nn.functional.mse_loss(exact(X.double()), Y.double())
    expected.backward()
    everywhere = on_all_ranks(net, nn.MSELoss(), Ranks())
    loss = everywhere(backpropagate, batched(X, Y, None, micro_size, Ranks(), 0).share_of_all)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(net.parameters(), exact.parameters(), strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-6)


def test_a_frozen_parameter_has_no_gradient() -> None:
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=0)
    net.get_parameter("hidden.weight").requires_grad_(False)
    on_all_ranks(net, nn.MSELoss(), Ranks())(backpropagate, batched(X, Y, None, 60, Ranks(), 0).share_of_all)
    assert [name for name, values in net.named_parameters() if values.grad is None] == ["hidden.weight"]


@pytest.mark.parametrize(("points", "hidden", "cores"), [(100, 10, 1), (20_000, 10, 1), (20_000, 1000, 2)])
def test_small_work_takes_one_core(points: int, hidden: int, cores: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.zeros(points, 1)
        with enough_cores(
            network.build(network.Network(style="module", hidden=hidden), 1, 1, seed=0),
            batched(x, x, None, points, Ranks(), 0),
        ):
            assert torch.get_num_threads() == cores
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
