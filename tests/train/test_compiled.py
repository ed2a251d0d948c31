import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages import history, network
from stages.runtime.errors import UserError
from stages.train.batches import Batches
from stages.train.compiled import CompiledSteps, library
from stages.train.compiled import steps as compiled
from stages.train.compiled.library import Recipe
from stages.train.compiled.loop import loop_over_steps
from stages.train.layers import examine
from stages.train.loop import descend
from stages.train.optim import new_optimizer
from stages.train.parallel import on_all_ranks
from stages.train.ranks import Ranks
from tests.conftest import Copy, before_summary
from tests.train.test_stage import losses, trained, write_points

ONE = Ranks()
Loop = Callable[[list[Tensor]], object]


def uncompiled(recipe: Recipe) -> Loop:
    """Return the traced loop, which torch runs as it is."""
    loop = loop_over_steps(recipe)
    return lambda arguments: loop(*arguments)


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load", uncompiled)


def points(n: int, n_feature: int, n_output: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, n_feature, generator=generator)
    y = x.square().sum(1, keepdim=True) + 0.1 * torch.randn(n, n_output, generator=generator)
    return x, y


def both(
    widths: tuple[int, int, int] = (3, 6, 2),
    *,
    n: int = 110,
    size: int | None = 24,
    micro_size: int = 1000,
    name: Any = "SGD",
    learning_rate: float = 0.02,
    options: dict[str, Any] | None = None,
    loss_function: nn.Module | None = None,
    style: str = "module",
    epochs: int = 10,
) -> tuple[list[float], list[float]]:
    """Train with compiled and with eager steps; return the losses of the epochs of both."""
    loss_function = loss_function or nn.MSELoss()
    batches = Batches(*points(n, widths[0], widths[2]), size, micro_size, Ranks(), 5)
    net = network.build(network.Network.model_validate({"style": style, "hidden": widths[1]}), *widths[::2], seed=1)
    twin = copy.deepcopy(net)
    optimizer, other = (new_optimizer(name, each, learning_rate, options or {}) for each in (net, twin))
    steps = CompiledSteps(net, optimizer, loss_function, batches)
    ours = [sum(float(taken.loss) * taken.fraction for taken in steps.take((epoch, 0), 1)) for epoch in range(epochs)]
    everywhere = on_all_ranks(twin, loss_function, Ranks())
    theirs = [
        sum(float(loss) * batch.fraction_of_epoch for batch, loss in descend(other, batches.epoch(epoch), everywhere))
        for epoch in range(epochs)
    ]
    return ours, theirs


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize(
    ("name", "learning_rate", "options"),
    [
        ("SGD", 0.05, {}),
        ("SGD", 0.02, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        ("SGD", 0.02, {"momentum": 0.9, "dampening": 0.3}),
        ("SGD", 0.001, {"maximize": True}),
        ("ASGD", 0.05, {"weight_decay": 0.01}),
        ("Adadelta", 1.0, {}),
        ("Adagrad", 0.05, {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
        ("Adam", 0.01, {}),
        ("Adam", 0.01, {"amsgrad": True, "weight_decay": 0.1, "betas": [0.8, 0.99]}),
        ("AdamW", 0.01, {"weight_decay": 0.1}),
        ("Adamax", 0.01, {}),
        ("NAdam", 0.01, {"decoupled_weight_decay": True, "weight_decay": 0.01}),
        ("RAdam", 0.01, {}),
        ("RMSprop", 0.003, {}),
        ("RMSprop", 0.003, {"centered": True, "momentum": 0.5}),
        ("Rprop", 0.003, {"etas": [0.4, 1.3]}),
    ],
)
def test_the_loop_takes_the_steps_of_every_optimizer(name: str, learning_rate: float, options: dict[str, Any]) -> None:
    ours, theirs = both(name=name, learning_rate=learning_rate, options=options)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_every_optimizer_that_is_said_to_compile_is_tested() -> None:
    parameters = test_the_loop_takes_the_steps_of_every_optimizer.pytestmark[0].args[1]
    assert sorted({name for name, *_ in parameters}) == compiled.OPTIMIZERS


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize("loss_function", [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss()])
def test_the_loop_computes_every_loss(loss_function: nn.Module) -> None:
    ours, theirs = both((2, 5, 3), loss_function=loss_function, style="sequential", epochs=5)
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize(
    ("widths", "size", "micro_size"),
    [
        ((1, 10, 1), None, 1000),
        ((4, 1, 1), None, 30),
        ((1, 3, 2), 110, 1000),
        ((1, 10, 1), 24, 48),
        ((1, 3, 2), 50, 20),
        ((4, 1, 1), 7, 1),
        ((1, 10, 1), 109, 1000),
    ],
)
def test_the_loop_cuts_batches_of_any_size(widths: tuple[int, int, int], size: int | None, micro_size: int) -> None:
    ours, theirs = both(widths, size=size, micro_size=micro_size, options={"momentum": 0.9}, epochs=4)
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.usefixtures("not_compiled")
def test_many_epochs_of_a_full_batch_are_taken_in_one_call() -> None:
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=1)
    optimizer = new_optimizer("SGD", net, 0.1, {})
    batches = Batches(*points(50, 1, 1), None, 1000, Ranks(), 5)
    steps = CompiledSteps(net, optimizer, nn.MSELoss(), batches)
    (first,) = steps.take((0, 0), 100)
    (taken,) = steps.take((1, 0), 30)
    assert first.loss.dim() == 0 and first.earlier_epochs is None
    assert taken.earlier_epochs is not None
    losses = torch.stack([*taken.earlier_epochs, taken.loss])
    assert (len(losses), taken.fraction, taken.steps) == (30, 1, 1)
    assert (losses.diff() < 0).all()
    everywhere = on_all_ranks(net, nn.MSELoss(), Ranks())
    (_, after), *_ = descend(optimizer, [batches.share_of_all], everywhere)
    assert after < losses[-1]  # the network itself has learned


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize("changes", [{}, {"batch_size": 30, "validation_fraction": 0.2}])
def test_the_stage_records_what_it_does_with_eager_steps(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)
    records = []
    for steps in ("eager", "compiled"):
        trained_params = trained(steps=steps, **changes)
        records.append((trained_params, losses(), history.read_snapshots("data/history.npz")))
        Path(".checkpoint/train").unlink()
    (eager, eager_losses, expected), (ours, our_losses, snapshots) = records
    torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)
    assert our_losses == pytest.approx(eager_losses, rel=1e-4)
    assert snapshots.epochs.tolist() == expected.epochs.tolist()
    assert snapshots.losses == pytest.approx(expected.losses, rel=1e-4)
    assert snapshots.predictions == pytest.approx(expected.predictions, rel=1e-3, abs=1e-4)
    assert Path("data/net_params.pkl").stat().st_size == 2461  # no parameter is a view of them all


@pytest.mark.usefixtures("not_compiled")
def test_an_epoch_goes_on_after_the_steps_that_were_taken() -> None:
    batches = Batches(*points(110, 3, 2), 24, 48, Ranks(), 5)

    def start() -> tuple[nn.Module, CompiledSteps]:
        net = network.build(network.Network(style="module", hidden=6), 3, 2, seed=1)
        return net, CompiledSteps(net, new_optimizer("Adam", net, 0.01, {}), nn.MSELoss(), batches)

    (whole, uninterrupted), (net, steps) = start(), start()
    expected = list(uninterrupted.take((0, 0), 1))
    taken = 0
    for expected_call in expected:
        call = next(steps.take((0, taken), 1))
        assert call == expected_call
        taken += call[2]
    assert (taken, len(expected)) == (5, 3)  # the first alone, then two in a call
    for ours, theirs in zip(net.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("wrong", ["parameters", "loss", "nan"])
def test_a_wrong_compiled_step_stops_the_training(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(recipe: Recipe) -> Loop:
        right = uncompiled(recipe)

        def loop(arguments: list[Tensor]) -> None:
            before = arguments[2].clone()
            right(arguments)
            if wrong == "loss":
                arguments[0].mul_(1.05)
            else:
                arguments[2].lerp_(before if wrong == "parameters" else before * torch.nan, 0.05)

        return loop

    monkeypatch.setattr(library, "load", load)
    with pytest.raises(
        UserError, match=r"^params.yaml: kernels: compiled steps of SGD differ from eager ones: use native$"
    ):
        both()


def test_what_cannot_be_compiled_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def message(net: nn.Module, name: Any = "SGD", ranks: Ranks = ONE, **options: Any) -> str:
        batches = Batches(*points(50, 1, 1), None, 1000, ranks, 5)
        with pytest.raises(UserError) as caught:
            optimizer, demands = new_optimizer(name, net, 0.1, options), examine(net, batches.x, batches.y)
            CompiledSteps(net, optimizer, nn.MSELoss(), batches, demands)
        text = str(caught.value)
        assert text.startswith("params.yaml: kernels: compiled") and "\n" not in text
        return text.removeprefix("params.yaml: kernels: compiled ")

    plain = nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1))
    assert message(plain, "LBFGS") == (
        "cannot train with LBFGS: use native, or one of ASGD, Adadelta, Adagrad, Adam, AdamW, Adamax, NAdam, RAdam, "
        "RMSprop, Rprop, SGD"
    )
    assert message(plain, ranks=Ranks(0, 2)) == "cannot train in several ranks: use native, or start one rank"
    assert message(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))) == (
        "cannot train a network with 1 (BatchNorm1d), which computes with whole batches: use native"
    )
    assert message(nn.Sequential(nn.Linear(1, 1), nn.Dropout())) == (
        "cannot train a network that draws random numbers, as Dropout does: use native"
    )


@pytest.mark.usefixtures("not_compiled")
def test_a_schedule_that_changes_more_than_the_learning_rate_is_refused() -> None:
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=1)
    optimizer = new_optimizer("SGD", net, 0.1, {"momentum": 0.9})
    steps = CompiledSteps(net, optimizer, nn.MSELoss(), Batches(*points(50, 1, 1), None, 1000, ONE, 5))
    optimizer.param_groups[0].update(lr=0.01)
    list(steps.take((0, 0), 1))
    list(steps.take((1, 0), 1))
    optimizer.param_groups[0].update(momentum=0.8)
    with pytest.raises(UserError, match="keeps the optimizer's momentum constant: set cycle_momentum to false in"):
        list(steps.take((2, 0), 1))


def test_the_compiled_gradient_of_many_points_is_that_of_float64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path / "new")
    monkeypatch.setattr(library, "KEPT", 2)
    (tmp_path / "new").mkdir()
    for age in (1, 2, 3):
        old = tmp_path / f"new/{age}.so"
        old.touch()
        os.utime(old, (0, 1000 - age))

    x = torch.linspace(-1, 1, 1_000_000)[:, None]
    y = x.square() + 0.2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=0)
    exact, before = copy.deepcopy(net).double(), copy.deepcopy(net)
    optimizer = new_optimizer("SGD", net, 1e-3, {})
    steps = CompiledSteps(net, optimizer, nn.MSELoss(), Batches(x, y, None, 65_536, ONE, 0))
    assert sorted(each.name for each in (tmp_path / "new").glob("?.so")) == ["1.so"]

    steps.vectors = compiled.Vectors(net, optimizer)  # so that the first step is compiled, too
    optimizer.param_groups[0]["lr"] = 1000.0  # next to which what the parameters were is rounding
    ((loss, *_),) = steps.take((1, 0), 1)
    expected = nn.functional.mse_loss(exact(x.double()), y.double())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    gradient = torch.cat([each.grad.reshape(-1) for each in exact.parameters() if each.grad is not None])
    first, ours = (nn.utils.parameters_to_vector(each.parameters()).detach().double() for each in (before, net))
    assert ((first - ours) / 1000 - gradient).abs().max() < 1e-6 * gradient.abs().max()


COMPILED = {
    "train__steps": "compiled",
    "train__batch_size": 30,
    "train__optimizer": "AdamW",
    "train__learning_rate": 0.02,
    "train__epochs": 40,
    "train__validation_fraction": 0.2,
    "train__schedule": "CosineAnnealingLR",
}


def test_a_training_is_compiled_once_and_learns_what_a_native_one_does(trained: Copy, tmp_path: Path) -> None:
    copy = trained.twin(tmp_path / "project")
    without = {"PATH": str(Path(sys.executable).parent), "XDG_CACHE_HOME": str(tmp_path / "cache")}  # a compiler

    def losses() -> Tensor:
        return torch.from_numpy(history.read_losses(str(copy.path / "data/loss.csv"))["validation_loss"])

    copy.set(**COMPILED)
    told = copy.stage("train", 2, **without)
    assert told == (
        "params.yaml: kernels: compiled needs the C++ compiler g++: install the package g++ (Debian, Ubuntu), gcc-c++ "
        "(Fedora) or the command line tools of Xcode (macOS), or use native\n"
    )
    assert "cannot train this network with AdamW and its options: " in copy.stage(
        "train", status=2, CXX="false", XDG_CACHE_HOME=str(tmp_path / "cache")
    )
    told = copy.stage("train", XDG_CACHE_HOME=str(tmp_path / "cache"))
    line = "Compiling the training takes about twenty seconds; later ones like it need no compiling\n"
    assert before_summary(told) == line
    ours, bits = losses(), copy.read("data/net.pkl")
    copy.stage("evaluate")

    same = {"train__learning_rate": 0.01, "train__epochs": 30, "train__seed": 4, "train__schedule": "StepLR"}
    copy.set(**same, train__schedule_options={"step_size": 9}, generate__noise=0.1)
    copy.stage("train", 0, **without)
    copy.set(**COMPILED, train__seed=11, train__schedule_options={})
    copy.stage("train", 0, **without)
    assert copy.read("data/net.pkl") == bits

    copy.set(train__batch_size=31)
    assert "needs the C++ compiler" in copy.stage("train", 2, **without)
    copy.set(train__batch_size=30, train__steps="eager")
    copy.stage("train")
    torch.testing.assert_close(ours, losses(), rtol=1e-3, atol=1e-6)
