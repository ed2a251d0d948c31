"""Compiled steps of several networks at once: each learns what a training of its own, with eager steps, would learn."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages import history, network
from stages.ensemble import Stack, seeds_of
from stages.folds import Folds, Kept
from stages.runtime.errors import UserError
from stages.train.batches import Batches, Points
from stages.train.compiled import CompiledSteps, calls, library
from stages.train.loop import descend
from stages.train.loss import new_loss
from stages.train.optim import new_optimizer
from stages.train.parallel import on_all_ranks
from stages.train.validation import hold_back
from tests.train.compiled.test_steps import ONE, cache, changed, compiled_steps, points, points_for, real_load
from tests.train.test_stage import losses, trained, write_points

pytestmark = pytest.mark.slow  # it trains again and again

SEEDS = seeds_of(5, 3)


__all__ = ["cache"]


def nets_of(widths: tuple[int, int, int]) -> list[nn.Module]:
    section = network.Network(style="module", hidden=widths[1])
    return [network.build(section, *widths[::2], seed=seed) for seed in SEEDS]


def ours(
    nets: list[nn.Module], training: Points, size: int | None, name: Any, loss: str, epochs: int, cores: int = 2
) -> tuple[Stack, list[Tensor]]:
    """Train the networks together with compiled steps; return them, and the losses of the epochs, (networks,) each."""
    stack = Stack(nets, training.x.shape[1])
    batches = Batches(training, size, 1000, ONE, SEEDS)
    optimizer, loss_function = new_optimizer(name, stack, 0.02, {}), new_loss(loss, several=True)
    steps = compiled_steps(stack, optimizer, loss_function, batches, cores=cores)
    calls = [list(steps.take((epoch, 0), 1)) for epoch in range(epochs)]
    steps.close()
    return stack, [torch.stack([taken.loss * taken.fraction for taken in epoch]).sum(0) for epoch in calls]


def alone(net: nn.Module, batches: Batches, name: Any, loss: str, epochs: int) -> list[float]:
    """Train a network by itself with eager steps; return the losses of the epochs."""
    optimizer, everywhere = new_optimizer(name, net, 0.02, {}), on_all_ranks(net, new_loss(loss, several=False), ONE)
    return [
        sum(
            float(loss) * batch.fraction_of_epoch
            for batch, loss in descend(optimizer, batches.epoch(epoch), everywhere)
        )
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize(
    ("widths", "size", "held_back", "name", "loss"),
    [
        ((3, 6, 2), None, 0, "SGD", "MSELoss"),
        ((3, 6, 4), None, 0, "SGD", "CrossEntropyLoss"),
        ((3, 6, 2), None, 11, "Adam", "CrossEntropyLoss"),
        ((3, 6, 4), 24, 11, "AdamW", "CrossEntropyLoss"),
        ((3, 6, 2), None, 11, "Rprop", "MSELoss"),
        ((3, 6, 2), None, 11, "RAdam", "HuberLoss"),
        ((1, 10, 1), 98, 11, "ASGD", "L1Loss"),
        ((4, 1, 1), 50, 40, "NAdam", "MSELoss"),
    ],
)
def test_each_network_learns_what_it_would_alone(
    widths: tuple[int, int, int], size: int | None, held_back: int, name: Any, loss: str
) -> None:
    x, y, n = points_for(new_loss(loss, several=False), 110, widths[0], widths[2])[:3]
    folds = Folds(n, held_back, len(SEEDS), 7)
    training, _ = hold_back(x, y, folds)
    stack, epochs = ours(nets_of(widths), training, size, name, loss, 4)
    kept = Kept(folds.held_back(), folds.rows).at(torch.arange(training.n))
    for index, (net, seed, rows) in enumerate(zip(nets_of(widths), SEEDS, kept, strict=True)):
        own = Batches(Points(x[rows], y[rows], training.n), size, 1000, ONE, [seed])
        expected = alone(net, own, name, loss, 4)
        assert [float(losses[index]) for losses in epochs] == pytest.approx(expected, rel=1e-5)
        together = {name.removeprefix("net."): values[index] for name, values in stack.state_dict().items()}
        torch.testing.assert_close(together, dict(net.state_dict()), rtol=1e-4, atol=1e-5)


class Unbatched(nn.Module):
    """A network with a buffer, a frozen parameter and an activation of its own, which are computed by vmap."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.predict, self.frozen = nn.Linear(2, 6), nn.Linear(6, 1), nn.Linear(6, 6)
        self.frozen.requires_grad_(False)
        self.scale: Tensor
        self.register_buffer("scale", torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.frozen(torch.relu(self.hidden(x)) * self.scale).cos())


@pytest.mark.parametrize("size", [None, 24])
def test_networks_that_vmap_computes_learn_the_same(size: int | None) -> None:
    def nets() -> list[nn.Module]:
        torch.manual_seed(3)
        return [Unbatched() for _ in SEEDS]

    training = points(55, 2, 1)
    stack, epochs = ours(nets(), training, size, "AdamW", "MSELoss", 4)
    assert not stack.batched
    for index, (net, seed) in enumerate(zip(nets(), SEEDS, strict=True)):
        expected = alone(net, Batches(training, size, 20, ONE, [seed]), "AdamW", "MSELoss", 4)
        assert [float(losses[index]) for losses in epochs] == pytest.approx(expected, rel=1e-5)


def test_many_epochs_of_a_full_batch_with_folds_are_taken_in_one_call() -> None:
    x, y, n = points(50, 1, 1)[:3]
    stack = Stack(nets_of((1, 10, 1)), 1)
    batches = Batches(hold_back(x, y, Folds(n, 5, 3, 7))[0], None, 1000, ONE, SEEDS)
    steps = compiled_steps(stack, new_optimizer("SGD", stack, 0.1, {}), new_loss("MSELoss", several=True), batches)
    list(steps.take((0, 0), 100))
    (taken,) = steps.take((1, 0), 30)
    assert taken.earlier_epochs is not None
    losses = torch.stack([*taken.earlier_epochs, taken.loss])
    assert (losses.shape, taken.fraction, taken.steps) == ((30, 3), 1, 1)
    assert (losses.diff(dim=0) < 0).all()


@pytest.mark.parametrize("size", [None, 24])
def test_the_bits_do_not_depend_on_the_number_of_cores(size: int | None) -> None:
    """Of several networks: each is computed on one core."""
    x, y, n = points(110, 3, 2)[:3]
    training, _ = hold_back(x, y, Folds(n, 11, len(SEEDS), 7))
    states = [
        ours(nets_of((3, 6, 2)), training, size, "NAdam", "MSELoss", 3, cores)[0].state_dict() for cores in (1, 3)
    ]
    for name, values in states[0].items():
        assert torch.equal(values, states[1][name])


def test_the_cores_compute_the_steps_of_one_network_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SMALL_WORK", 0)

    def trained_on(cores: int) -> tuple[list[float], Tensor]:
        net = nets_of((3, 40, 2))[0]
        batches = Batches(points(1000, 3, 2), None, 1000, ONE, SEEDS[:1])
        steps = compiled_steps(net, new_optimizer("Adam", net, 0.02, {}), nn.MSELoss(), batches, cores=cores)
        losses = [float(taken.loss) for epoch in range(4) for taken in steps.take((epoch, 0), 1)]
        steps.close()
        return losses, torch.cat([values.flatten() for values in net.parameters()])

    (alone, one), (losses, together), (_, again) = trained_on(1), trained_on(3), trained_on(3)
    assert losses == pytest.approx(alone, rel=1e-6)
    torch.testing.assert_close(together, one, rtol=1e-4, atol=1e-6)
    assert torch.equal(together, again)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch_size": 30, "validation_fraction": 0.2, "schedule": "CosineAnnealingLR"},
        {"micro_batch_size": 30, "validation_fraction": 0.2, "patience": 3, "epochs": 60, "learning_rate": 0.7},
    ],
)
def test_the_stage_records_what_it_does_with_eager_steps(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)
    records = []
    for steps in ("eager", "compiled"):
        params = trained(steps=steps, networks=3, **changes)
        records.append((params, losses(), losses("loss_std"), history.read_snapshots("data/history.npz")))
        Path(".checkpoint/train").unlink()
    (eager, *expected_losses, expected), (compiled, *our_losses, snapshots) = records
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)
    for column, expected_column in zip(our_losses, expected_losses, strict=True):
        assert column == pytest.approx(expected_column, rel=1e-3)
    assert snapshots.epochs.tolist() == expected.epochs.tolist()
    assert snapshots.networks == pytest.approx(expected.networks, rel=1e-3, abs=1e-4)


def test_an_epoch_goes_on_after_the_steps_that_were_taken() -> None:
    batches = Batches(points(110, 3, 2), 24, 48, ONE, SEEDS)

    def start() -> tuple[nn.Module, CompiledSteps]:
        stack = Stack(nets_of((3, 6, 2)), 3)
        optimizer, loss_function = new_optimizer("Adam", stack, 0.01, {}), new_loss("MSELoss", several=True)
        return stack, compiled_steps(stack, optimizer, loss_function, batches)

    (whole, uninterrupted), (stack, steps) = start(), start()
    *_, expected = uninterrupted.take((0, 0), 1)
    next(steps.take((0, 0), 1))
    (call,) = steps.take((0, 1), 1)
    assert torch.equal(call.loss, expected.loss) and call[1:] == expected[1:] and call.steps == 4
    for mine, theirs in zip(stack.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_step_that_is_wrong_stops_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = "values0[r] = v", "values0[r] = 1.0001f * v"
    monkeypatch.setattr(library, "load", lambda header: real_load(changed(header, wrong)))
    with pytest.raises(UserError, match="compiled steps of SGD differ from eager ones"):
        ours(nets_of((3, 6, 2)), points(110, 3, 2), None, "SGD", "MSELoss", 1)
