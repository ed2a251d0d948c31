"""Networks trained side by side, against each of them trained alone by a plain loop."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from torch import Tensor, nn

from stages import dataset, history, network
from stages.ensemble import seeds_of
from stages.folds import Folds
from stages.runtime import params
from stages.runtime.errors import UserError
from stages.runtime.seeds import mixed
from stages.train.optim import OptimizerName
from stages.train.settings import NOT_ELEMENTWISE
from stages.train.stage import Params
from tests.conftest import LESSON
from tests.train.test_stage import SETTINGS, losses, trained, write_points

pytestmark = pytest.mark.slow  # it trains again and again

NETWORKS = 3
NESTED = "networks.net."  # of the names of the networks' tensors in the state dict of an Ensemble
SWINGING: dict[str, Any] = {"learning_rate": 0.2, "optimizer_options": {"momentum": 0.9}}  # the best epoch is early
CASES: dict[str, dict[str, Any]] = {
    "lesson": {},
    "sequential": {"style": "sequential"},
    "adam": {"optimizer": "Adam", "learning_rate": 0.01, "batch_size": 30},
    "schedule": {"schedule": "StepLR", "schedule_options": {"step_size": 3}, "batch_size": 60},
    "micro-batches": {"micro_batch_size": 7, "loss": "L1Loss", "learning_rate": 0.05},
    "validation": {"validation_fraction": 0.2, **SWINGING},
    "batches and validation": {"validation_fraction": 0.4, "batch_size": 25, "optimizer": "AdamW", "epochs": 30},
    "micro-batches and validation": {"validation_fraction": 0.3, "micro_batch_size": 11, **SWINGING},
    "patience": {"validation_fraction": 0.2, "patience": 4, "epochs": 200, **SWINGING},
}


@pytest.fixture(autouse=True)
def in_folder_with_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)


class Alone(NamedTuple):
    """One network, trained by a plain loop."""

    kept: dict[str, Tensor]  # its weights: the last, or the best
    losses: list[float]
    validation: list[float]
    stopped: int  # epochs until it was out of patience, or all


def alone(
    seed: int,
    held_back: Tensor,
    *,
    style: str = "module",
    epochs: int = 20,
    batch_size: int | None = None,
    optimizer: str = "SGD",
    learning_rate: float = 0.2,
    optimizer_options: dict[str, Any] | None = None,
    schedule: str | None = None,
    schedule_options: dict[str, Any] | None = None,
    loss: str = "MSELoss",
    patience: int | None = None,
    **_: object,  # how many points are held back, and computed at a time
) -> Alone:
    x, y, *_rest = dataset.read("data/train.pt")
    rows = torch.tensor([row for row in range(len(x)) if row not in held_back.tolist()])
    net = network.build(network.Network.model_validate({"style": style, "hidden": 10}), 1, 1, seed)
    steps = getattr(torch.optim, optimizer)(net.parameters(), lr=learning_rate, **optimizer_options or {})
    rates = getattr(torch.optim.lr_scheduler, schedule)(steps, **schedule_options or {}) if schedule else None
    loss_function = getattr(nn, loss)()
    kept, lowest, since, stopped = net.state_dict(), float("inf"), 0, 0
    training, validation = [], []
    for epoch in range(epochs):
        order, size = torch.arange(len(rows)), batch_size or len(rows)
        if batch_size:
            generator = torch.Generator().manual_seed(mixed(seed, epoch))
            order = torch.randperm(len(rows), generator=generator, dtype=torch.int32).long()
        total = 0.0
        for batch in rows[order].split(size):
            value = loss_function(net(x[batch]), y[batch])
            steps.zero_grad()
            value.backward()
            steps.step()
            total += value.item() * len(batch) / len(rows)
        training.append(total)
        if rates:
            rates.step()
        if not len(held_back) or since == patience:
            continue
        stopped = epoch + 1
        since += 1
        with torch.no_grad():
            validation.append(loss_function(net(x[held_back]), y[held_back]).item())
        if validation[-1] < lowest:
            kept, lowest, since = copy.deepcopy(net.state_dict()), validation[-1], 0
    return Alone(kept if len(held_back) else net.state_dict(), training, validation, stopped or epochs)


def one_by_one(**changes: Any) -> list[Alone]:
    rows = Folds(100, round(100 * changes.get("validation_fraction", 0)), NETWORKS, SETTINGS["seed"]).held_back()
    seeds = seeds_of(SETTINGS["seed"], NETWORKS)
    return [alone(seed, held_back, **changes) for seed, held_back in zip(seeds, rows, strict=True)]


def side_by_side(**changes: Any) -> list[dict[str, Tensor]]:
    """Run the stage; return the state dict of each network."""
    state = trained(**{"networks": NETWORKS, **changes})
    stacks = {name.removeprefix(NESTED): values for name, values in state.items() if name.startswith(NESTED)}
    return [{name: values[index] for name, values in stacks.items()} for index in range(changes.get("networks", 3))]


@pytest.mark.parametrize("case", CASES)
def test_networks_side_by_side_learn_what_each_learns_alone(case: str) -> None:
    expected = one_by_one(**CASES[case])
    for ours, theirs in zip(side_by_side(**CASES[case]), expected, strict=True):
        torch.testing.assert_close(ours, theirs.kept, rtol=1e-3, atol=1e-5)
    epochs = max(own.stopped for own in expected)  # until the last is out of patience
    curves = {"loss": [own.losses[:epochs] for own in expected]}
    if case == "patience":
        assert len({own.stopped for own in expected}) > 1  # else this shows nothing
    elif "validation" in case:
        curves["validation_loss"] = [own.validation for own in expected]
    for name, each in curves.items():
        values = torch.tensor(each, dtype=torch.float64)  # (networks, epochs)
        assert losses(name) == pytest.approx(values.mean(dim=0).tolist(), rel=1e-3)
        assert losses(f"{name}_std") == pytest.approx(values.std(dim=0).tolist(), rel=1e-2, abs=1e-6)


@pytest.mark.parametrize("index", range(NETWORKS))
@pytest.mark.parametrize("changes", [{}, {"batch_size": 30, "optimizer": "Adam", "learning_rate": 0.01}])
def test_each_network_is_that_of_a_single_training_with_its_seed(index: int, changes: dict[str, Any]) -> None:
    ours = side_by_side(**changes)[index]
    torch.testing.assert_close(
        ours, trained(**changes, seed=seeds_of(SETTINGS["seed"], NETWORKS)[index]), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("changes", [{}, {"validation_fraction": 0.2, "patience": 3}])
def test_one_network_has_the_bytes_of_a_training_that_does_not_say_how_many(changes: dict[str, Any]) -> None:
    outputs = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]
    trained(**changes)
    expected = [Path(name).read_bytes() for name in outputs]
    trained(**changes, networks=1)
    assert [Path(name).read_bytes() for name in outputs] == expected


def test_snapshots_hold_the_predictions_of_each_network_and_their_mean() -> None:
    single = trained()
    alone = history.read_snapshots("data/history.npz")
    assert alone.networks is None
    first = side_by_side()[0]
    torch.testing.assert_close(first, single, rtol=1e-3, atol=1e-5)
    snapshots = history.read_snapshots("data/history.npz")
    assert snapshots.epochs.tolist() == alone.epochs.tolist() == [0, 8, 16, 20]
    assert snapshots.networks is not None
    assert snapshots.networks.shape == (4, NETWORKS, 100, 1)
    assert snapshots.networks[:, 0] == pytest.approx(alone.predictions, abs=1e-5)
    assert snapshots.predictions == pytest.approx(snapshots.networks.mean(axis=1), abs=1e-6)
    x = torch.from_numpy(snapshots.x)
    for index, state in enumerate(side_by_side()):
        net = network.Net(1, 10, 1)
        net.load_state_dict(state)
        assert snapshots.networks[-1, index] == pytest.approx(net(x).detach().numpy(), abs=1e-6)
    seeds = seeds_of(SETTINGS["seed"], NETWORKS)
    for index, seed in enumerate(seeds):
        first_weights = network.build(network.Network(style="module", hidden=10), 1, 1, seed)
        assert snapshots.networks[0, index] == pytest.approx(first_weights(x).detach().numpy(), abs=1e-6)


class Residual(nn.Module):
    """A network with a residual connection."""

    def __init__(self, n_feature: int, n_hidden: int, n_output: int) -> None:
        super().__init__()
        self.hidden, self.more = nn.Linear(n_feature, n_hidden), nn.Linear(n_hidden, n_hidden)
        self.predict = nn.Linear(n_hidden, n_output)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.hidden(x))
        return self.predict(x + torch.relu(self.more(x)))


class Odd(Residual):
    """A network whose forward uses the number of rows, one column, and a softmax."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.softmax(self.hidden(x), dim=1)
        return self.predict(torch.cat([hidden[:, 1:], x[:, :1]], dim=1)).reshape(len(x), -1)


def deep(n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
    hidden, predict = nn.Linear(n_feature, n_hidden), nn.Linear(n_hidden, n_output)
    return nn.Sequential(hidden, nn.GELU(), nn.LayerNorm(n_hidden), predict)


def with_layer(layer: nn.Module) -> Callable[[int, int, int], nn.Module]:
    def build(n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
        hidden, predict = nn.Linear(n_feature, n_hidden), nn.Linear(n_hidden, n_output)
        return nn.Sequential(hidden, nn.ReLU(), copy.deepcopy(layer), predict)

    return build


@pytest.mark.parametrize("build", [Residual, Odd, deep])
@pytest.mark.parametrize("changes", [{}, {"validation_fraction": 0.2, "batch_size": 30}])
def test_other_networks_learn_side_by_side_what_each_learns_alone(
    build: Callable[[int, int, int], nn.Module], changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": build})
    changes = {"learning_rate": 0.05, **changes}
    for ours, theirs in zip(side_by_side(**changes), one_by_one(**changes), strict=True):
        torch.testing.assert_close(ours, theirs.kept, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "layer", [nn.Dropout(0.3), nn.AlphaDropout(0.3), nn.Sequential(nn.Dropout(0.3), nn.LayerNorm(10))]
)
def test_networks_that_draw_random_numbers_draw_the_same_ones_every_time(
    layer: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": with_layer(layer)})
    changes = {"learning_rate": 0.05, "batch_size": 30}
    expected = side_by_side(**changes)
    for ours, theirs in zip(side_by_side(**changes), expected, strict=True):
        assert all(torch.equal(ours[name], values) for name, values in theirs.items())


class Branch(nn.Module):
    """A layer that computes differently for some values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else 2 * x


class BranchInTraining(Branch):
    """A layer that does so in training only."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else x


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (nn.BatchNorm1d(10), r"2 \(BatchNorm1d\) computes with whole batches"),
        (nn.RReLU(), "networks like this cannot be stacked: vmap: .+"),
        (Branch(), "networks like this cannot be stacked: vmap: .+"),
        (BranchInTraining(), "networks like this cannot be stacked: vmap: .+"),
    ],
)
def test_networks_that_cannot_be_stacked_are_refused_in_one_line(
    layer: nn.Module, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": with_layer(layer)})
    trained(epochs=1)
    with pytest.raises(UserError, match=rf"^params\.yaml: train\.networks: must be 1, since {why}$"):
        side_by_side()


MIXING = [("optimizer" if name in get_args(OptimizerName) else "schedule", name) for name in NOT_ELEMENTWISE]


@pytest.mark.parametrize(("section", "name"), MIXING)
def test_what_would_mix_the_networks_is_refused(section: str, name: str) -> None:
    document = params.load(str(LESSON))
    document["train"] |= {section: name, "networks": 2, "validation_fraction": 0.2}
    with pytest.raises(UserError) as caught:
        params.check("params.yaml", document, Params)
    rule = "must be another one while train.networks is above 1: it would mix the networks"
    assert str(caught.value) == f"params.yaml: train.{section}: {rule}, got {name!r}"
    document["train"] |= {"networks": 1}
    params.check("params.yaml", document, Params)


OTHERS = sorted({*get_args(OptimizerName)} - {*NOT_ELEMENTWISE, "SparseAdam", "SGD", "AdamW"})


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_optimizer_keeps_the_networks_apart(name: str) -> None:
    changes: dict[str, Any] = {"optimizer": name, "learning_rate": 0.01, "epochs": 10}
    for ours, theirs in zip(side_by_side(**changes), one_by_one(**changes), strict=True):
        torch.testing.assert_close(ours, theirs.kept, rtol=2e-3, atol=1e-4)
