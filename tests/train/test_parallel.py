import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages import network
from stages.train.batches import Batch, Batches, MicroBatch
from stages.train.loop import LossFunction, backpropagate, descend
from stages.train.parallel import MAX_THREADS, Workers, replicate, workers
from stages.train.ranks import Ranks

X = torch.linspace(-1, 1, 103).unsqueeze(1)
Y = X**2


@contextmanager
def in_threads(count: int, cores: int = 1) -> Iterator[Workers]:
    """Yield the network of the lesson in so many threads, as if the machine had that many cores for each."""
    before = torch.get_num_threads()
    torch.set_num_threads(count * cores)
    net = network.build("module", 1, 10, 1, seed=3)
    try:
        with workers(net, nn.MSELoss(), Batches(X, Y, None, 1, Ranks(), 0)) as everywhere:
            yield everywhere
    finally:
        torch.set_num_threads(before)


def trained(count: int, micro_size: int = 10, **options: Any) -> tuple[dict[str, Tensor], list[float]]:
    """Train in that many threads; return the state dict and the losses."""
    with in_threads(count) as everywhere:
        optimizer = getattr(torch.optim, options.pop("name", "SGD"))(
            everywhere.net.parameters(), **{"lr": 0.1} | options
        )
        full = [Batches(X, Y, None, micro_size, Ranks(), 0).full] * 30
        losses = [loss.item() for _, loss in descend(optimizer, full, everywhere)]
        return everywhere.net.state_dict(), losses


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("micro_size", [10, 30, 60, 200])  # eleven micro-batches, four, two, one
def test_the_gradient_of_all_threads_is_that_of_float64(count: int, micro_size: int) -> None:
    with in_threads(count) as everywhere:
        exact = copy.deepcopy(everywhere.net).double()
        expected = nn.functional.mse_loss(exact(X.double()), Y.double())
        expected.backward()
        for _ in range(2):  # the second finds nothing left of the first
            everywhere.net.zero_grad()
            loss = everywhere(backpropagate, Batches(X, Y, None, micro_size, Ranks(), 0).full)
            assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
            for ours, theirs in zip(everywhere.net.parameters(), exact.parameters(), strict=True):
                assert ours.grad is not None
                torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"momentum": 0.9}, {"name": "Adam"}, {"name": "LBFGS", "lr": 0.01, "max_iter": 3}]
)
def test_threads_change_nothing_but_rounding(options: dict[str, Any]) -> None:
    alone, together = trained(1, **options), trained(3, **options)
    torch.testing.assert_close(together[0], alone[0], rtol=1e-3, atol=1e-5)
    assert together[1] == pytest.approx(alone[1], rel=1e-3)


def test_the_same_number_of_threads_gives_the_same_bits() -> None:
    state, losses = trained(4, micro_size=3)
    for _ in range(20):
        again, again_losses = trained(4, micro_size=3)
        assert again_losses == losses
        assert all(torch.equal(again[name], values) for name, values in state.items())


@pytest.mark.parametrize(("count", "cores"), [(1, 1), (3, 1), (MAX_THREADS, 2)])
def test_every_thread_has_a_network_and_its_part_of_the_cores(count: int, cores: int) -> None:
    seen: list[tuple[int, int, int]] = []

    def watched(net: nn.Module, loss_function: LossFunction, x: Tensor, y: Tensor) -> Tensor:
        seen.append((id(net), threading.get_ident(), torch.get_num_threads()))
        together.wait(timeout=60)
        return backpropagate(net, loss_function, x, y)

    together = threading.Barrier(count)
    with in_threads(count, cores) as everywhere:
        everywhere(watched, Batch([MicroBatch(X[:1], Y[:1], 1 / count)] * count, 1.0))
    networks, threads, of_each = map(set, zip(*seen, strict=True))
    assert len(networks) == len(threads) == count
    assert of_each == {cores}


def test_a_frozen_parameter_has_no_gradient() -> None:
    net = network.build("module", 1, 10, 1, seed=0)
    net.get_parameter("hidden.weight").requires_grad_(False)
    with ThreadPoolExecutor(2) as pool:
        everywhere = Workers(net, nn.MSELoss(), Ranks(), [replicate(net)], pool)
        everywhere(backpropagate, Batch([MicroBatch(X, Y, 0.5)] * 2, 1.0))
        assert [name for name, values in net.named_parameters() if values.grad is None] == ["hidden.weight"]


def test_a_gradient_that_one_thread_alone_has_is_added() -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.high = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.low(x) if x.mean() < 0 else self.high(x)

    net = Picky()
    with ThreadPoolExecutor(2) as pool:
        everywhere = Workers(net, nn.MSELoss(), Ranks(), [replicate(net)], pool)
        everywhere(backpropagate, Batch([MicroBatch(X[:50], Y[:50], 0.5), MicroBatch(X[60:], Y[60:], 0.5)], 1.0))
    gradients = [values.grad.clone() for values in net.parameters() if values.grad is not None]
    net.zero_grad()
    alone = Workers(net, nn.MSELoss(), Ranks())
    alone(backpropagate, Batch([MicroBatch(X[:50], Y[:50], 0.5), MicroBatch(X[60:], Y[60:], 0.5)], 1.0))
    assert len(gradients) == 4
    torch.testing.assert_close(gradients, [values.grad for values in net.parameters()])


def test_an_error_in_a_thread_is_told() -> None:
    def broken(net: nn.Module, loss_function: LossFunction, x: Tensor, y: Tensor) -> Tensor:
        raise MemoryError(f"for {len(x)} points")

    with in_threads(2) as everywhere, pytest.raises(MemoryError, match="for 9 points"):
        everywhere(broken, Batches(X, Y, None, 10, Ranks(), 0).full)


def test_an_accelerator_takes_one_thread() -> None:
    net = network.build("module", 1, 10, 1, seed=0)
    with workers(net, nn.MSELoss(), Batches(X.to("meta"), Y.to("meta"), None, 1, Ranks(), 0)) as everywhere:
        assert not everywhere.replicas


@pytest.mark.parametrize(("points", "hidden", "threads"), [(100, 10, 1), (20_000, 10, 1), (20_000, 1000, 2)])
def test_small_work_takes_one_thread(points: int, hidden: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x = torch.zeros(points, 1)
        with workers(
            network.build("module", 1, hidden, 1, seed=0), nn.MSELoss(), Batches(x, x, None, points, Ranks(), 0)
        ):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
