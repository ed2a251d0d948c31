"""Points held back, the best weights and patience, against a plain loop."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stages import dataset, history, models, network
from stages.dataset import Dataset
from stages.runtime import params, progress
from stages.runtime.errors import UserError
from stages.train.parallel import on_all_ranks
from stages.train.ranks import Ranks
from stages.train.stage import Params
from stages.train.validation import Validation
from tests.conftest import LESSON
from tests.train.batched import batched, split
from tests.train.test_stage import SETTINGS, losses, trained, write_points

LESSON_NETWORK = models.Blueprint(network.Network(style="module", hidden=10), 1, 1)


@pytest.fixture(autouse=True)
def in_folder_with_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)


def numbered(n: int) -> Dataset:
    x = torch.arange(float(n)).unsqueeze(1)
    return Dataset(x, -x)


@pytest.mark.parametrize(("n", "fraction", "count"), [(100, 0.2, 20), (2, 0.5, 1), (10, 0.25, 2), (7, 0.9, 6)])
def test_held_back_points_are_a_random_share_in_order_with_their_targets(n: int, fraction: float, count: int) -> None:
    train, validate = split(numbered(n), fraction, seed=1)
    assert validate is not None
    assert len(validate.x) == count
    assert sorted([*train.x[:, 0].tolist(), *validate.x[:, 0].tolist()]) == list(range(n))
    for points in (train, validate):
        assert torch.equal(points.y, -points.x)
        assert points.x[:, 0].tolist() == sorted(points.x[:, 0].tolist())


def test_which_points_are_held_back_depends_on_the_seed_alone() -> None:
    def held_back(seed: int) -> list[float]:
        validate = split(numbered(100), 0.2, seed)[1]
        assert validate
        return validate.x[:, 0].tolist()

    torch.manual_seed(1)
    first = held_back(5)
    torch.manual_seed(2)
    assert held_back(5) == first
    assert len({tuple(held_back(seed)) for seed in range(20)}) == 20


def test_no_fraction_holds_back_nothing_and_copies_nothing() -> None:
    points = numbered(5)
    training, held_back = split(points, 0, seed=1)
    assert training.x is points.x and training.y is points.y
    assert held_back is None


@pytest.mark.parametrize(("n", "fraction"), [(1, 0.5), (1, 0.9), (2, 0.1), (2, 0.9), (100, 0.004), (100, 0.996)])
def test_too_few_points_for_either_part_are_reported(n: int, fraction: float) -> None:
    with pytest.raises(UserError) as caught:
        split(numbered(n), fraction, seed=1)
    points = "1 point" if n == 1 else f"{n} points"
    assert str(caught.value) == (
        f"params.yaml: train.validation_fraction: must hold back at least one of {points} and leave at least one to "
        f"train on, got {fraction}"
    )


def reference(
    epochs: int, patience: int | None = None, rate: float = 0.2, **options: Any
) -> tuple[dict[str, Tensor], list[float], list[float]]:
    """Train in a plain loop; return the best weights, the losses and the validation losses."""
    points, held_back = split(dataset.read("data/train.pt"), 0.3, SETTINGS["seed"])
    assert held_back
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=SETTINGS["seed"])
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, **options)
    best, lowest, since = net.state_dict(), float("inf"), 0
    training, validation = [], []
    for _ in range(epochs):
        loss = nn.functional.mse_loss(net(points.x), points.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        training.append(loss.item())
        with torch.no_grad():
            validation.append(nn.functional.mse_loss(net(held_back.x), held_back.y).item())
        since += 1
        if validation[-1] < lowest:
            best, lowest, since = copy.deepcopy(net.state_dict()), validation[-1], 0
        if since == patience:
            break
    return best, training, validation


SWINGING: dict[str, Any] = {"momentum": 0.9}  # the best epoch is not the last


def test_the_weights_with_the_lowest_validation_loss_are_saved() -> None:
    epochs = len(reference(200, patience=3, **SWINGING)[1])
    best, training, validation = reference(epochs, **SWINGING)
    assert validation.index(min(validation)) == epochs - 4
    state = trained(epochs=epochs, validation_fraction=0.3, optimizer_options=SWINGING)
    assert all(torch.equal(state[key], values) for key, values in best.items())
    assert all(torch.equal(values, best[key]) for key, values in restored().items())
    for column, expected in [("loss", training), ("validation_loss", validation), ("learning_rate", [0.2] * epochs)]:
        assert [f"{value:.9g}" for value in losses(column)] == [f"{value:.9g}" for value in expected]


@pytest.mark.parametrize("patience", [1, 3, 6])
def test_training_stops_where_patience_does_in_a_plain_loop(patience: int) -> None:
    best, training, _ = reference(200, patience, **SWINGING)
    assert len(training) < 200
    state = trained(epochs=200, validation_fraction=0.3, patience=patience, optimizer_options=SWINGING)
    assert all(torch.equal(state[key], values) for key, values in best.items())
    assert len(losses()) == len(losses("validation_loss")) == len(training)
    snapshots = history.read_snapshots("data/history.npz")
    assert snapshots.epochs.tolist() == [*range(0, len(training), 8), len(training)]
    assert snapshots.x.shape == (70, 1)


def restored() -> dict[str, Tensor]:
    return models.restore_net("data/net.pkl", LESSON_NETWORK).state_dict()


def test_the_first_of_several_lowest_losses_is_the_best() -> None:
    net, zero = nn.Linear(1, 1), torch.zeros(1, 1)
    validation = Validation(net, batched(zero, zero, None, 1, Ranks(), 0).share_of_all, patience=2, networks=1)
    with torch.no_grad():
        net.bias.zero_()
        for weight in (1.0, 2.0):  # times an x of 0
            net.weight.fill_(weight)
            validation.measure(on_all_ranks(net, nn.MSELoss(), Ranks()), 0)
    validation.restore_best()
    assert net.weight.item() == 1
    assert not validation.patience_is_over()


def test_a_validation_loss_that_is_not_finite_is_reported() -> None:
    points, held_back = split(dataset.read("data/train.pt"), 0.3, SETTINGS["seed"])
    assert held_back
    x, y = torch.cat([points.x, held_back.x]), torch.cat([points.y, held_back.y])
    order = torch.argsort(x[:, 0])
    x, y = x[order], y[order]
    y[torch.isin(x, held_back.x)] = 1e30  # squared, more than a float32 holds
    dataset.write("data/train.pt", Dataset(x, y))
    with pytest.raises(
        UserError, match="^the validation loss is inf at epoch 0: lower train.learning_rate, or look for extreme values"
    ):
        trained(validation_fraction=0.3)


@pytest.mark.parametrize(
    "changes",
    [
        {"batch_size": 30, "optimizer": "Adam", "learning_rate": 0.01},
        {"optimizer": "LBFGS", "learning_rate": 0.1, "epochs": 5},
        {"micro_batch_size": 7},
    ],
)
def test_every_way_of_training_saves_the_weights_of_the_lowest_validation_loss(changes: dict[str, Any]) -> None:
    state = trained(validation_fraction=0.3, **changes)
    net = network.build(network.Network(style="module", hidden=10), 1, 1, seed=0)
    net.load_state_dict(state)
    held_back = split(dataset.read("data/train.pt"), 0.3, SETTINGS["seed"])[1]
    assert held_back
    loss = nn.functional.mse_loss(net(held_back.x), held_back.y).item()
    assert loss == pytest.approx(min(losses("validation_loss")), rel=1e-5)


def test_the_progress_shows_the_validation_loss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_AFTER", 0.0)
    trained(validation_fraction=0.3)
    last = f"loss={losses()[-1]:.4g}, validation_loss={losses('validation_loss')[-1]:.4g}, learning_rate=0.2"
    assert capsys.readouterr().err.splitlines()[-1] == f"epoch 20 of 20, {last}"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"patience": 5}, "train.patience: must be null while train.validation_fraction is 0, got 5"),
        ({"patience": 0, "validation_fraction": 0.1}, "train.patience: must be greater than 0, got 0"),
        ({"validation_fraction": 1}, "train.validation_fraction: must be less than 1, got 1"),
        ({"validation_fraction": -0.1}, "train.validation_fraction: must be greater than or equal to 0, got -0.1"),
        (
            {"schedule_options": {"gamma": 1}},
            "train.schedule_options: must be empty while train.schedule is null, got ",
        ),
        ({"schedule": "LambdaLR"}, "train.schedule: must be "),
    ],
)
def test_settings_that_make_no_sense_together_are_reported(changes: dict[str, Any], told: str) -> None:
    document = params.load(str(LESSON))
    document["train"] |= changes
    with pytest.raises(UserError) as caught:
        params.check("params.yaml", document, Params)
    assert str(caught.value).startswith(f"params.yaml: {told}")
    assert "\n" not in str(caught.value)
