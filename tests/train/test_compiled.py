import copy
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages import history, network
from stages.runtime.errors import UserError
from stages.train.batches import Batches
from stages.train.compiled import CompiledSteps, library, process, recipe, trust
from stages.train.compiled import steps as compiled
from stages.train.compiled.library import Library
from stages.train.compiled.loop import loop_over_steps
from stages.train.compiled.recipe import Recipe
from stages.train.compiled.sources import modules_of
from stages.train.compiled.vectors import Vectors
from stages.train.layers import examine
from stages.train.loop import descend
from stages.train.optim import new_optimizer
from stages.train.parallel import on_all_ranks
from stages.train.ranks import Ranks
from tests.conftest import PROJECT, Copy, before_summary, posix_errors
from tests.train.test_stage import losses, trained, write_points

ONE = Ranks()
Loop = Callable[[list[Tensor]], object]


def uncompiled(recipe: Recipe) -> Loop:
    """Return the traced loop, which torch runs as it is."""
    loop = loop_over_steps(recipe)
    return lambda arguments: loop(*arguments)


@pytest.fixture
def not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "load", lambda recipe: Library(uncompiled(recipe)))


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


class Wrong(Library):
    """A loop whose steps, loss or parameters are wrong."""

    def __init__(self, recipe: Recipe, wrong: str, **options: Any) -> None:
        right = uncompiled(recipe)

        def run(arguments: list[Tensor]) -> None:
            before = arguments[2].clone()
            right(arguments)
            if wrong == "loss":
                arguments[1][-1] *= 1.01
            else:
                arguments[2].lerp_(before if wrong == "parameters" else before * torch.nan, 0.05)

        super().__init__(run, **options)


@pytest.mark.parametrize("wrong", ["parameters", "loss", "nan"])
def test_a_wrong_compiled_step_stops_the_training(wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "kept.so"
    kept.touch()
    monkeypatch.setattr(library, "load", lambda recipe: Wrong(recipe, wrong, path=kept))
    with pytest.raises(
        UserError, match=r"^params.yaml: train.steps: compiled steps of SGD differ from eager ones: use eager$"
    ):
        both()
    assert not kept.exists()


def test_a_kept_library_that_is_wrong_is_made_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = tmp_path / "kept.so"
    kept.touch()

    def load(recipe: Recipe) -> Library:
        return Wrong(recipe, "loss", path=kept, is_new=False) if kept.exists() else Library(uncompiled(recipe))

    monkeypatch.setattr(library, "load", load)
    ours, theirs = both()
    assert ours == pytest.approx(theirs, rel=1e-5)


class Clipped(nn.Module):
    """The lesson's network with another activation, which is the identity up to a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.hidden, self.predict, self.limit = nn.Linear(1, 10), nn.Linear(10, 1), limit

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(nn.functional.hardtanh(self.hidden(x), 0.0, self.limit))


def clipped(monkeypatch: pytest.MonkeyPatch, limit: float, library_limit: float) -> CompiledSteps:
    """Return steps of a network with one limit, by a library that was made of another."""

    def load(recipe: Recipe) -> Library:
        return Library(uncompiled(recipe._replace(net=Clipped(library_limit))))

    monkeypatch.setattr(library, "load", load)
    torch.manual_seed(1)
    net = Clipped(limit)
    x = torch.linspace(0, 3, 50)[:, None]
    return CompiledSteps(
        net, new_optimizer("Adam", net, 0.1, {}), nn.MSELoss(), Batches(x, x.square(), None, 1000, ONE, 5)
    )


def test_code_that_differs_only_where_training_gets_later_is_noticed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="compiled steps of Adam differ"):
        clipped(monkeypatch, 3.5, 6.0)


@pytest.mark.parametrize("noticed", ["at the end", "on the way"])
def test_code_that_differs_only_where_training_gets_is_noticed_there(
    noticed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = tmp_path / ".checkpoint/train"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    monkeypatch.setattr(compiled, "WIDE", 1.0)
    steps = clipped(monkeypatch, 3.5, 6.0)
    with torch.no_grad():
        steps.net.get_parameter("hidden.bias").add_(5)
    list(steps.take((0, 0), 1))
    list(steps.take((1, 0), 8))
    with pytest.raises(UserError, match="compiled steps of Adam differ"):
        steps.close() if noticed == "at the end" else list(steps.take((9, 0), 1))
    assert not checkpoint.exists()


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize("name", ["SGD", "Adam", "Rprop", "Adadelta"])
def test_where_a_training_has_converged_rounding_is_no_difference(name: Any) -> None:
    net = nn.Sequential(nn.Linear(1, 3), nn.ReLU(), nn.Linear(3, 1))
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.1, 0.5, generator=torch.Generator().manual_seed(0))
    x = torch.linspace(-1, 1, 40)[:, None]
    optimizer, batches = new_optimizer(name, net, 0.01, {}), Batches(x, 2 * x, None, 1000, ONE, 5)
    for _ in descend(optimizer, [batches.share_of_all] * 2000, on_all_ranks(net, nn.MSELoss(), ONE)):
        pass
    steps = CompiledSteps(net, optimizer, nn.MSELoss(), batches)
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
        x = x.log() * self.scale * self.first.detach()  # of which 0 is -inf
        x = torch.relu(self.frozen(torch.relu(self.hidden(x[:, None]))))  # (n, 1, 6)
        return self.predict(x)[:, 0]


def odd_steps() -> tuple[Odd, CompiledSteps, Odd, Callable[[int], float]]:
    """Return a network, its compiled steps, a twin, and a function that takes its steps of an epoch eagerly."""
    torch.manual_seed(3)
    net = Odd()
    twin = copy.deepcopy(net)
    x = torch.rand(55, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    batches = Batches(x, x.sum(1, keepdim=True), 24, 20, ONE, 5)
    options = {"weight_decay": 0.1}
    steps = CompiledSteps(net, new_optimizer("AdamW", net, 0.02, options), nn.MSELoss(), batches)
    optimizer, everywhere = new_optimizer("AdamW", twin, 0.02, options), on_all_ranks(twin, nn.MSELoss(), ONE)

    def eager(epoch: int) -> float:
        return sum(
            float(loss) * batch.fraction_of_epoch
            for batch, loss in descend(optimizer, batches.epoch(epoch), everywhere)
        )

    return net, steps, twin, eager


@pytest.mark.usefixtures("not_compiled")
def test_layers_that_are_frozen_unused_or_in_three_dimensions_and_buffers_are_no_obstacle() -> None:
    net, steps, twin, eager = odd_steps()
    for epoch in range(10):
        loss = sum(float(taken.loss) * taken.fraction for taken in steps.take((epoch, 0), 1))
        assert loss == pytest.approx(eager(epoch), rel=1e-5)
    steps.close()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def recipe_of(net: nn.Module, **changed: Any) -> Recipe:
    learning = tuple(name for name, parameter in net.named_parameters() if parameter.requires_grad)
    return Recipe(net, learning, nn.MSELoss(), "SGD", {"momentum": 0}, {}, 100, 1, 1)._replace(**changed)


def key(recipe: Recipe) -> str:
    return recipe.key(modules_of(recipe.net))


class WithAttributes(nn.Module):
    """A network with what its description does not show."""

    def __init__(self, slope: float = 0.1, names: frozenset[str] = frozenset(), width: int = 2) -> None:
        super().__init__()
        self.layer, self.slope, self.names = nn.Linear(1, 1), slope, names
        self.register_buffer("scale", torch.ones(width))


def test_the_key_covers_the_recipe_but_not_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = recipe_of(WithAttributes())
    frozen = WithAttributes()
    frozen.layer.bias.requires_grad_(False)
    keys = [
        key(plain),
        key(recipe_of(WithAttributes(slope=0.2))),
        key(recipe_of(WithAttributes(names=frozenset("abc")))),
        key(recipe_of(WithAttributes(width=3))),
        key(recipe_of(WithAttributes().double())),
        key(recipe_of(frozen)),
        key(plain._replace(learning=plain.learning[:1])),
        key(plain._replace(loss_function=nn.HuberLoss(delta=2.0))),
        key(plain._replace(loss_function=nn.HuberLoss(delta=3.0))),
        key(plain._replace(options={"momentum": 0.9})),
        key(plain._replace(state={"momentum_buffer": False})),
        key(plain._replace(rows=50)),
    ]
    monkeypatch.setenv("CPATH", "/elsewhere")
    keys.append(key(plain))
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    assert key(recipe_of(WithAttributes())) == keys[0]  # with other weights


HELPER = """
import os
LIMIT = float(os.environ.get("LIMIT", "3.5"))
"""
NETWORK = """
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(1, 1)

    def forward(self, x: Tensor) -> Tensor:
        from helper_of_a_network import LIMIT

        return F.hardtanh(self.hidden(x), 0.0, LIMIT)
"""


@pytest.fixture
def helped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """The recipe of a network that imports a constant from another module, both in tmp_path."""
    (tmp_path / "helper_of_a_network.py").write_text(HELPER)
    (tmp_path / "network_with_a_helper.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("helper_of_a_network", "network_with_a_helper"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    net = importlib.import_module("network_with_a_helper").Net()
    net(torch.ones(1, 1))
    return recipe_of(net)


def test_the_key_covers_the_modules_that_the_network_imports(
    helped: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [module.name for module in modules_of(helped.net)]
    assert {"helper_of_a_network", "network_with_a_helper", "stages.network", "pydantic"} <= set(names)
    assert not [name for name in names if name.startswith("torch") or name in ("os", "stages.train.training")]
    keys = [key(helped)]
    (tmp_path / "helper_of_a_network.py").write_text(HELPER.replace("3.5", "6.0"))
    keys.append(key(helped))
    monkeypatch.setattr(sys.modules["helper_of_a_network"], "LIMIT", 6.0)  # from the environment
    keys.append(key(helped))
    assert len(set(keys)) == 3


@pytest.mark.parametrize("text", [HELPER.replace("3.5", "6.0"), "LIMIT = ("], ids=["value", "syntax"])
def test_a_module_that_changes_before_it_is_compiled_is_named(
    text: str, helped: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modules = modules_of(helped.net)
    (tmp_path / "helper_of_a_network.py").write_text(text)
    monkeypatch.syspath_prepend(PROJECT)
    (tmp_path / "work").mkdir()
    with pytest.raises(
        UserError, match=r"^helper_of_a_network.py: changed while the stage ran: run `dvc repro` again$"
    ):
        process.compiled(helped, modules, str(tmp_path / "work"))
    assert not (tmp_path / "work/library").exists()


def test_what_the_compilers_stumble_over_is_named(helped: Recipe, tmp_path: Path) -> None:
    unknown = helped._replace(optimizer="Unknown")
    with pytest.raises(
        UserError,
        match="^params.yaml: train.steps: compiled cannot train this network with Unknown and its options: module "
        "'torch.optim' has no attribute 'Unknown': use eager$",
    ):
        process.compiled(unknown, modules_of(helped.net), str(tmp_path))
    output = "C++ compile error\nOutput:\nx.cpp: In function:\nx.cpp:3: error: no\nx.cpp:4: error: never"
    assert process.cause(RuntimeError(output)) == "x.cpp:3: error: no"


class Cache:
    """A folder for libraries; what is compiled are the bytes `made`, and running a library returns its bytes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.made, self.compiled = folder, b"right", 0
        monkeypatch.setattr(library, "FOLDER", folder)
        monkeypatch.setattr(library, "compiled", self.compile)
        monkeypatch.setattr(library, "_loaded", self.loaded)
        self.recipe = recipe_of(nn.Linear(1, 1))

    def compile(self, recipe: Recipe, modules: object, folder: str) -> bytes:
        self.compiled += 1
        Path(folder, "library").write_bytes(self.made)
        return self.made

    def loaded(self, path: Path) -> Callable[[list[Tensor]], object]:
        if (content := path.read_bytes()) == b"not loadable":
            raise RuntimeError
        return lambda arguments: content

    def load(self) -> Library:
        loaded = library.load(self.recipe)
        assert loaded.run([]) == b"right"
        return loaded

    def paths(self) -> list[Path]:
        return sorted(self.folder.iterdir())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    return Cache(tmp_path / "new/cache", monkeypatch)


def test_a_kept_library_is_used_again(cache: Cache) -> None:
    assert cache.load().is_new
    (path,) = cache.paths()
    assert path.stat().st_mode & 0o77 == cache.folder.stat().st_mode & 0o77 == 0
    again = cache.load()
    assert (again.is_new, again.path, cache.compiled) == (False, path, 1)
    cache.folder.chmod(0o500)
    path.chmod(0o400)
    assert not cache.load().is_new
    cache.folder.chmod(0o700)
    again.discard()
    again.discard()
    assert cache.load().is_new


@pytest.mark.parametrize("content", [b"", b"righ", b"wrong"])
def test_a_damaged_library_is_made_again(content: bytes, cache: Cache) -> None:
    cache.load()
    (path,) = cache.paths()
    path.write_bytes(content)
    assert cache.load().is_new
    assert cache.paths() == [path]
    assert not cache.load().is_new


def test_a_library_that_does_not_load_here_is_made_again(cache: Cache) -> None:
    cache.load()
    (path,) = cache.paths()
    path.rename(path.with_name(f"{path.stem.rsplit('.', 1)[0]}.{library._digest(b'not loadable')}.so"))
    cache.paths()[0].write_bytes(b"not loadable")
    assert cache.load().is_new
    assert cache.paths() == [path]


def test_of_many_libraries_those_used_last_are_kept(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "KEPT", 2)
    cache.folder.mkdir(parents=True, mode=0o700)
    for age in (1, 2, 3):
        old = cache.folder / f"{age}.so"
        old.touch()
        os.utime(old, (0, 1000 - age))
    cache.load()
    assert [path.name for path in cache.paths() if len(path.name) == 4] == ["1.so"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_no_library_is_loaded_from_a_folder_where_others_write(
    mode: int, cache: Cache, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.load()
    (path,) = cache.paths()
    cache.folder.chmod(mode)
    assert cache.load().path is None
    assert capsys.readouterr().err == (
        f"The compiled library is used only once: {cache.folder}: others can write there: make it and its parent "
        "folders writable only by you\n"
    )
    assert cache.paths() == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_no_library_is_loaded_that_another_user_could_have_written(cache: Cache) -> None:
    cache.load()
    (path,) = cache.paths()
    path.chmod(0o666)
    assert cache.load().is_new
    if os.getuid() == 0:  # only root gives files away
        os.chown(path, 12345, -1)
        assert cache.load().is_new
        assert path.stat().st_uid == 0
        os.chown(cache.folder, 12345, -1)
        assert cache.load().path is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_folder_is_not_the_users_alone_where_others_can_replace_it(tmp_path: Path) -> None:
    folder = tmp_path / "open/closed/folder"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    folder.parent.chmod(0o777)
    tmp_path.chmod(0o755)
    reached = [path for path in tmp_path.parents if not path.stat().st_mode & 0o011]
    assert trust.only_the_user_writes(folder) == bool(reached)  # nobody else gets as far as pytest's folder
    (tmp_path / "link").symlink_to(folder)
    folder.parent.chmod(0o755)
    assert trust.only_the_user_writes(tmp_path / "link")


def test_a_folder_that_cannot_be_made_is_no_obstacle(
    cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").touch()
    assert cache.load().path is None
    told = capsys.readouterr().err
    assert told.startswith(f"The compiled library is used only once: {cache.folder}: cannot be used: ")
    assert told.count("\n") == 1


@posix_errors
def test_a_folder_that_cannot_be_written_is_no_obstacle(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(library, "_digest", lambda content: "f" * 300)  # too long a name
    assert cache.load().path is None
    assert capsys.readouterr().err.endswith(
        ".so: cannot be written: File name too long: fix this, then run `dvc repro`\n"
    )


def test_without_a_compiler_what_another_one_has_made_is_used(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache.load()
    other = tmp_path / "compiler"
    other.write_text("#!/bin/sh\necho 1.0")
    other.chmod(0o700)
    monkeypatch.setenv("CXX", str(other))
    assert cache.load().is_new
    other.write_text("#!/bin/sh\necho 2.0")
    assert cache.load().is_new
    assert len(cache.paths()) == 1
    monkeypatch.setenv("CXX", "no-compiler")
    assert not cache.load().is_new
    cache.paths()[0].unlink()
    with pytest.raises(
        UserError,
        match=r"^params.yaml: train.steps: compiled needs the C\+\+ compiler no-compiler: install the package",
    ):
        cache.load()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_training_leaves_no_compiling_process(copy: Copy) -> None:
    copy.stage("generate")
    copy.set(**COMPILED)
    compiler = copy.path / "slow compiler"
    compiler.write_text(f"#!/bin/sh\n[ $# = 1 ] && exec g++ $1\necho $$ > '{copy.path}/started'\nsleep 300 &\nwait\n")
    compiler.chmod(0o700)
    training = copy.start("python", "-m", "stages", "train", CXX=str(compiler), XDG_CACHE_HOME=str(copy.path / "cache"))
    started = copy.path / "started"
    while not (started.exists() and started.read_text()):
        assert training.poll() is None
        time.sleep(0.1)
    group = int(Path(f"/proc/{started.read_text().strip()}/stat").read_text().rpartition(")")[2].split()[2])
    training.send_signal(signal.SIGKILL)
    training.communicate()
    while members(group):  # the test hangs if one is left
        time.sleep(0.1)


def members(group: int) -> list[str]:
    """Return the processes of a group that have not ended."""
    processes = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # just ended
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if its_group == str(group) and state != "Z":
                processes.append(path.parent.name)
    return processes


def test_what_cannot_be_compiled_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def message(net: nn.Module, name: Any = "SGD", ranks: Ranks = ONE, **options: Any) -> str:
        batches = Batches(*points(50, 1, 1), None, 1000, ranks, 5)
        with pytest.raises(UserError) as caught:
            optimizer, demands = new_optimizer(name, net, 0.1, options), examine(net, batches.x, batches.y)
            CompiledSteps(net, optimizer, nn.MSELoss(), batches, demands)
        text = str(caught.value)
        assert text.startswith("params.yaml: train.steps: compiled") and "\n" not in text
        return text.removeprefix("params.yaml: train.steps: compiled ")

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
    """Of an odd network, where all paths have spaces."""
    spaced = tmp_path / "a b"
    (spaced / "temporary").mkdir(parents=True)
    (spaced / "torch").symlink_to(Path(torch.__file__).parent)
    (spaced / "g++").symlink_to(shutil.which("g++") or "")
    monkeypatch.setattr(tempfile, "tempdir", str(spaced / "temporary"))
    monkeypatch.syspath_prepend(spaced)
    monkeypatch.setenv("CXX", str(spaced / "g++"))
    monkeypatch.setattr(library, "FOLDER", spaced / "new")

    x = torch.rand(1_000_000, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    y = x.square().sum(1, keepdim=True)
    torch.manual_seed(3)
    net = Odd()
    exact, before = copy.deepcopy(net).double(), copy.deepcopy(net)
    optimizer = new_optimizer("SGD", net, 1e-3, {})
    steps = CompiledSteps(net, optimizer, nn.MSELoss(), Batches(x, y, None, 65_536, ONE, 0))

    steps.vectors = Vectors(net, optimizer, steps.learning)  # so that the first step is compiled, too
    optimizer.param_groups[0]["lr"] = 1000.0  # next to which what the parameters were is rounding
    ((loss, *_),) = steps.take((1, 0), 1)
    expected = nn.functional.mse_loss(exact(x.double()), y.double())
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    gradient = torch.cat([value.grad.reshape(-1) for value in exact.parameters() if value.grad is not None])
    first, ours = (
        torch.cat([value.reshape(-1) for value in recipe.learning_parameters(each, steps.learning).values()])
        for each in (before, net)
    )
    assert ((first.detach().double() - ours) / 1000 - gradient).abs().max() < 1e-6 * gradient.abs().max()


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
        "params.yaml: train.steps: compiled needs the C++ compiler g++: install the package g++ (Debian, Ubuntu), "
        "gcc-c++ (Fedora) or the command line tools of Xcode (macOS), or use eager\n"
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
