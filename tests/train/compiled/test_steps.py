"""What compiled steps compute, and how they are checked."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages import history, network
from stages.runtime.errors import UserError
from stages.train.batches import Batches, Points
from stages.train.compiled import CompiledSteps, library
from stages.train.compiled import steps as compiled
from stages.train.layers import Demands, examine
from stages.train.loop import descend
from stages.train.loss import OF_AMOUNTS, OF_CLASSES, new_loss
from stages.train.optim import new_optimizer
from stages.train.parallel import on_all_ranks
from stages.train.ranks import Ranks
from tests.train.test_stage import losses, trained, write_points

pytestmark = pytest.mark.slow  # it trains again and again

ONE = Ranks()
SEEDS = [5]
real_load = library.load


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep libraries in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "FOLDER", tmp_path_factory.mktemp("libraries"))
        yield


def compiled_steps(
    net: nn.Module, optimizer: Optimizer, loss_function: nn.Module, batches: Batches, cores: int = 1
) -> CompiledSteps:
    return CompiledSteps(net, optimizer, loss_function, batches, Demands(), cores)


def points(n: int, n_feature: int, n_output: int) -> Points:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, n_feature, generator=generator)
    y = x.square().sum(1, keepdim=True) + 0.1 * torch.randn(n, n_output, generator=generator)
    return Points(x, y, n)


def points_for(loss_function: nn.Module, n: int, n_feature: int, n_output: int) -> Points:
    """Return points whose y fit the loss: amounts or, for cross-entropy, classes."""
    made = points(n, n_feature, n_output)
    if not isinstance(loss_function, nn.CrossEntropyLoss):
        return made
    return made._replace(y=nn.functional.one_hot(made.x.sum(1).long().abs() % n_output, n_output).float())


def both(
    widths: tuple[int, int, int] = (3, 6, 2),
    *,
    net: nn.Module | None = None,
    n: int = 110,
    size: int | None = 24,
    name: Any = "SGD",
    learning_rate: float = 0.02,
    options: dict[str, Any] | None = None,
    loss_function: nn.Module | None = None,
    style: str = "module",
    epochs: int = 10,
) -> tuple[list[float], list[float]]:
    """Train with compiled and with eager steps, the lesson's network or another; return the losses of the epochs."""
    loss_function = loss_function or nn.MSELoss()
    batches = Batches(points_for(loss_function, n, widths[0], widths[2]), size, 1000, Ranks(), SEEDS)
    section = network.Network.model_validate({"style": style, "hidden": widths[1]})
    net = net or network.build(section, *widths[::2], seed=1)
    twin = copy.deepcopy(net)
    optimizer, other = (new_optimizer(name, trained, learning_rate, options or {}) for trained in (net, twin))
    steps = compiled_steps(net, optimizer, loss_function, batches)
    ours = [sum(float(taken.loss) * taken.fraction for taken in steps.take((epoch, 0), 1)) for epoch in range(epochs)]
    steps.close()
    everywhere = on_all_ranks(twin, loss_function, Ranks())
    theirs = [
        sum(float(loss) * batch.fraction_of_epoch for batch, loss in descend(other, batches.epoch(epoch), everywhere))
        for epoch in range(epochs)
    ]
    return ours, theirs


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


@pytest.mark.parametrize("name", [*OF_AMOUNTS, *OF_CLASSES])
def test_the_loop_computes_every_loss(name: str) -> None:
    loss_function = new_loss(name, several=False)
    ours, theirs = both((2, 5, 3), loss_function=loss_function, style="sequential", learning_rate=0.1, epochs=5)
    assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(
    ("widths", "n", "size"),
    [
        ((4, 1, 1), 110, None),
        ((1, 3, 2), 110, 110),
        ((1, 10, 1), 110, 109),
        ((1, 10, 1), 110, 24),
        ((4, 1, 1), 110, 7),
        ((3, 12, 5), 33, 32),
        ((5, 13, 4), 32, 31),
        ((17, 30, 7), 64, 33),
        ((4, 6, 4), 20, 1),
        ((1, 10, 1), 10_000, None),  # more than are added up at once
        ((40, 33, 3), 20, None),
    ],
)
def test_the_loop_cuts_batches_of_any_size(widths: tuple[int, int, int], n: int, size: int | None) -> None:
    ours, theirs = both(widths, n=n, size=size, options={"momentum": 0.9}, learning_rate=0.005, epochs=4)
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_many_epochs_of_a_full_batch_are_taken_in_one_call() -> None:
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=1)
    optimizer = new_optimizer("SGD", net, 0.1, {})
    batches = Batches(points(50, 1, 1), None, 1000, Ranks(), SEEDS)
    steps = compiled_steps(net, optimizer, nn.MSELoss(), batches)
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


def test_an_epoch_goes_on_after_the_steps_that_were_taken() -> None:
    batches = Batches(points(110, 3, 2), 24, 48, Ranks(), SEEDS)

    def start() -> tuple[nn.Module, CompiledSteps]:
        net = network.build(network.Network(style="module", hidden=6), 3, 2, seed=1)
        return net, compiled_steps(net, new_optimizer("Adam", net, 0.01, {}), nn.MSELoss(), batches)

    (whole, uninterrupted), (net, steps) = start(), start()
    expected = list(uninterrupted.take((0, 0), 1))
    taken = 0
    while taken < 5:
        (call,) = steps.take((0, taken), 1) if taken else [next(steps.take((0, 0), 1))]
        taken += call.steps
    assert [call.steps for call in expected] == [1, 4]
    assert call == expected[-1]
    for ours, theirs in zip(net.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def changed(header: str, *changes: tuple[str, str]) -> str:
    """Return code with changes to it, each of which must be possible."""
    for before, after in changes:
        assert before in header
        header = header.replace(before, after)
    return header


WRONG = {
    "parameters": ("values0[r] = v", "values0[r] = 1.0001f * v"),
    "gradient": (
        "collect(const float* sums, float* gradient) {",
        "collect(const float* sums, float* gradient) { gradient[0] += 0.1f;",
    ),
    "loss": (
        "collect(const float* sums, float* gradient) {",
        "collect(const float* sums, float* gradient) { gradient[PARAMETERS] += 1;",
    ),
    "nan": ("values0[r] = v", "values0[r] = NAN * v"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_compiled_step_stops_the_training(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[library.Library] = []

    def load(header: str) -> library.Library:
        made.append(real_load(changed(header, WRONG[wrong])))
        return made[-1]

    monkeypatch.setattr(library, "load", load)
    with pytest.raises(
        UserError, match=r"^params.yaml: train.steps: compiled steps of SGD differ from eager ones: use eager$"
    ):
        both()
    assert len(made) == 1
    assert made[0].path and not made[0].path.exists()


def test_a_kept_library_that_is_wrong_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[library.Library] = []

    def load(header: str) -> library.Library:
        made.append(real_load(header if made else changed(header, WRONG["loss"])))
        made[0].is_new = False
        return made[-1]

    monkeypatch.setattr(library, "load", load)
    ours, theirs = both()
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert len(made) == 2
    assert made[0].path and not made[0].path.exists()


def test_a_kept_library_that_is_wrong_and_cannot_be_deleted_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(header: str) -> library.Library:
        loaded = real_load(changed(header, WRONG["loss"]))
        loaded.is_new = False
        return loaded

    monkeypatch.setattr(library, "load", load)
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=1)
    batches = Batches(points(50, 1, 1), None, 1000, ONE, SEEDS)
    with pytest.raises(UserError, match="compiled steps of SGD differ from eager ones"):  # before any step
        compiled_steps(net, new_optimizer("SGD", net, 0.1, {}), nn.MSELoss(), batches)


class Clipped(nn.Module):
    """The lesson's network with another activation, which is the identity up to a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.hidden, self.predict, self.limit = nn.Linear(1, 10), nn.Linear(10, 1), limit

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(nn.functional.hardtanh(self.hidden(x), 0.0, self.limit))


def clipped(monkeypatch: pytest.MonkeyPatch) -> CompiledSteps:
    """Return steps of a network whose activation has the limit 3.5, by a library that was made for the limit 6."""
    monkeypatch.setattr(library, "load", lambda header: real_load(changed(header, ("3.5f", "6.0f"))))
    torch.manual_seed(1)
    net = Clipped(3.5)
    x = torch.linspace(0, 3, 50)[:, None]
    return compiled_steps(
        net,
        new_optimizer("Adam", net, 0.1, {}),
        nn.MSELoss(),
        Batches(Points(x, x.square(), len(x)), None, 1000, ONE, SEEDS),
    )


def test_code_that_differs_only_where_training_gets_later_is_noticed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="compiled steps of Adam differ"):
        clipped(monkeypatch)


@pytest.mark.parametrize("noticed", ["at the end", "on the way"])
def test_code_that_differs_only_where_training_gets_is_noticed_there(
    noticed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / ".checkpoint/train"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    monkeypatch.setattr(compiled, "WIDE", 1.0)
    steps = clipped(monkeypatch)
    with torch.no_grad():
        steps.net.get_parameter("hidden.bias").add_(5)
    list(steps.take((0, 0), 1))
    list(steps.take((1, 0), 8))
    with pytest.raises(UserError, match="compiled steps of Adam differ"):
        steps.close() if noticed == "at the end" else list(steps.take((9, 0), 1))
    assert not checkpoint.exists()


@pytest.mark.parametrize("name", ["SGD", "Adam", "Rprop", "Adadelta"])
def test_where_a_training_has_converged_rounding_is_no_difference(name: Any) -> None:
    net = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1))
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.1, 0.5, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(-1, 1, 40)[:, None]
    optimizer, batches = new_optimizer(name, net, 0.01, {}), Batches(Points(x, 2 * x, len(x)), None, 1000, ONE, SEEDS)
    for _ in descend(optimizer, [batches.share_of_all] * 500, on_all_ranks(net, nn.MSELoss(), ONE)):
        pass
    steps = compiled_steps(net, optimizer, nn.MSELoss(), batches)
    list(steps.take((1, 0), 4))
    steps.close()


class Odd(nn.Module):
    """A network with layers that are frozen, unused or in three dimensions, a buffer, and a logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.predict, self.frozen = nn.Linear(2, 6), nn.Linear(6, 1), nn.Linear(6, 6)
        self.unused = nn.Linear(3, 3)
        self.first = nn.Parameter(torch.ones(1))
        self.frozen.requires_grad_(False)
        self.scale: Tensor
        self.register_buffer("scale", torch.tensor([0.5, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.square().log() * self.scale * self.first.detach()  # of which 0 is -inf
        x = torch.relu(self.frozen(torch.relu(self.hidden(x[:, None]))))  # (n, 1, 6)
        return self.predict(x)[:, 0]


def test_layers_that_are_frozen_unused_or_in_three_dimensions_and_buffers_are_no_obstacle() -> None:
    torch.manual_seed(3)
    ours, theirs = both((2, 6, 1), net=Odd(), n=55, name="AdamW", options={"weight_decay": 0.1})
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_what_cannot_be_compiled_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def message(net: nn.Module, name: Any = "SGD", ranks: Ranks = ONE, **options: Any) -> str:
        batches = Batches(points(50, 1, 1), None, 1000, ranks, SEEDS)
        with pytest.raises(UserError) as caught:
            optimizer, demands = (
                new_optimizer(name, net, 0.1, options),
                examine(net, batches.points.x, batches.points.y),
            )
            CompiledSteps(net, optimizer, nn.MSELoss(), batches, demands, 1)
        text = str(caught.value)
        assert text.startswith("params.yaml: train.steps: compiled steps ") and "\n" not in text
        return text.removeprefix("params.yaml: train.steps: compiled steps ")

    plain = nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1))
    assert message(plain, "LBFGS") == (
        "cannot train with LBFGS: use eager, or one of ASGD, Adadelta, Adagrad, Adam, AdamW, Adamax, NAdam, RAdam, "
        "RMSprop, Rprop, SGD"
    )
    assert message(plain, ranks=Ranks(0, 2)) == "cannot train in several ranks: use eager, or start one rank"
    assert message(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))) == (
        "cannot train a network with 1 (BatchNorm1d), which computes with whole batches: use eager"
    )
    assert message(nn.Sequential(nn.Linear(1, 1), nn.Dropout())) == (
        "cannot train a network that draws random numbers, as Dropout does: use eager"
    )


def test_a_schedule_that_has_changed_more_than_the_learning_rate_is_refused_before_training() -> None:
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=1)
    optimizer = new_optimizer("AdamW", net, 0.1, {})
    torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=9)
    with pytest.raises(UserError, match="keep the optimizer's betas constant: set cycle_momentum to false in"):
        compiled_steps(net, optimizer, nn.MSELoss(), Batches(points(50, 1, 1), None, 1000, ONE, SEEDS))


def test_a_schedule_that_changes_more_than_the_learning_rate_is_refused() -> None:
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=1)
    optimizer = new_optimizer("SGD", net, 0.1, {"momentum": 0.9})
    steps = compiled_steps(net, optimizer, nn.MSELoss(), Batches(points(50, 1, 1), None, 1000, ONE, SEEDS))
    optimizer.param_groups[0].update(lr=0.01)
    list(steps.take((0, 0), 1))
    list(steps.take((1, 0), 1))
    optimizer.param_groups[0].update(momentum=0.8)
    with pytest.raises(UserError, match="keep the optimizer's momentum constant: set cycle_momentum to false in"):
        list(steps.take((2, 0), 1))
