"""Training on classes, against plain loops of torch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages import dataset, history, models, network
from stages.columns import Category, Columns, Number
from stages.dataset import Dataset
from stages.ensemble import Ensemble, seeds_of
from stages.folds import Folds
from stages.models import Blueprint
from stages.network import Network, predict
from stages.runtime.errors import UserError
from stages.tabular import Tabular, predict_each
from stages.train import stage
from stages.train.checkpoint.store import FINISHED, Checkpoint
from stages.train.settings import Train
from stages.train.stage import Params
from tests.train.test_stage import SETTINGS

pytestmark = pytest.mark.slow  # it trains again and again

COLUMNS = Columns(
    features=[Number(name="a"), Number(name="b")], targets=[Category(name="kind", levels=["few", "many", "some"])]
)
AMOUNTS = COLUMNS.model_copy(update={"targets": [Number(name=name) for name in "uvw"]})
OUTPUTS = ["data/net.pkl", "data/net_params.pkl", "data/loss.csv", "data/history.npz"]


def points() -> Dataset:
    """Return 90 rows of three classes, 45, 30 and 15 of them, which overlap."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.tensor([1, 1, 1, 2, 2, 0]).repeat(15)
    centres = torch.tensor([[0.0, 0.0], [50.0, 3.0], [50.0, 0.0]])
    x = centres[classes] + torch.randn(90, 2, generator=generator) * torch.tensor([20.0, 1.0])
    return Dataset(x, nn.functional.one_hot(classes, 3).float(), columns=COLUMNS)


@pytest.fixture(autouse=True)
def in_folder_with_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    dataset.write("data/train.pt", points())


def params(**changes: Any) -> Params:
    section = Network(style="module", hidden=10, standardize=True)
    return Params(kernels="portable", network=section, train=Train(**SETTINGS | {"loss": "auto"} | changes))


def trained(**changes: Any) -> Tabular:
    """Run the stage; return the model that it wrote."""
    stage.run(params(**changes))
    model = models.load("data/net.pkl")
    assert isinstance(model, Tabular)
    return model


def standardized() -> tuple[Tensor, Tensor]:
    x, y, *_ = points()
    x = x.double()
    return ((x - x.mean(dim=0)) / x.std(dim=0, correction=0)).float(), y


def five_steps(
    seed: int, rows: Tensor, epochs: int, name: str = "SGD", **options: Any
) -> tuple[nn.Module, list[float]]:
    """Return a network trained on these rows as a newcomer writes it, and its losses."""
    x, y = (values[rows] for values in standardized())
    torch.manual_seed(seed)
    net = network.Net(2, 10, 3)
    optimizer = getattr(torch.optim, name)(net.parameters(), **options)
    losses = []
    for _ in range(epochs):
        prediction = net(x)
        loss = nn.functional.cross_entropy(prediction, y.argmax(dim=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return net, losses


def inner(model: Tabular) -> dict[str, Tensor]:
    return dict(model.net.state_dict())


ALL = torch.arange(90)


@pytest.mark.parametrize("micro_size", [None, 20])
def test_one_network_takes_the_five_steps_with_cross_entropy(micro_size: int | None) -> None:
    net, losses = five_steps(11, ALL, 20, "Adam", lr=0.05)
    model = trained(optimizer="Adam", learning_rate=0.05, micro_batch_size=micro_size)
    torch.testing.assert_close(inner(model), dict(net.state_dict()), rtol=1e-3, atol=1e-4)
    assert history.read_losses("data/loss.csv")["loss"] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("fraction", [0, 0.2])
def test_three_networks_side_by_side_are_three_trained_one_by_one(fraction: float) -> None:
    model = trained(networks=3, validation_fraction=fraction)
    held_back = Folds(90, round(90 * fraction), 3, 11).held_back(points().classes)
    losses = []
    for index, seed in enumerate(seeds_of(11, 3)):
        rows = torch.tensor([row for row in range(90) if row not in held_back[index].tolist()])
        net, own = five_steps(seed, rows, 20, lr=0.2)
        losses.append(own)
        # With rows held back, the best weights are those of the last epoch: the loss falls until then.
        stacks = {name.removeprefix("networks.net."): stack for name, stack in inner(model).items()}
        for name, values in net.state_dict().items():
            torch.testing.assert_close(stacks[name][index], values, rtol=1e-3, atol=1e-4)
    curve = history.read_losses("data/loss.csv")["loss"]
    assert curve == pytest.approx(np.mean(losses, axis=0), rel=1e-5)


def test_the_validation_loss_is_cross_entropy_at_the_rows_held_back_and_its_lowest_weights_are_kept() -> None:
    model = trained(validation_fraction=0.2, learning_rate=6.0, epochs=40)
    losses = history.read_losses("data/loss.csv")["validation_loss"]
    assert losses.argmin() < 39
    (rows,) = Folds(90, 18, 1, 11).held_back(points().classes)
    x, y, *_ = points()
    probabilities = predict(model, x[rows]).double()
    of_rows = -(y[rows] * probabilities.log()).sum(dim=1)
    assert of_rows.mean().item() == pytest.approx(losses.min(), rel=1e-5)


def test_patience_ends_the_training_of_classes() -> None:
    trained(validation_fraction=0.2, learning_rate=6.0, epochs=500, patience=5)
    losses = history.read_losses("data/loss.csv")["validation_loss"]
    assert len(losses) == losses.argmin() + 6 < 500


@pytest.mark.parametrize("networks", [1, 3])
def test_predictions_snapshots_and_both_models_are_the_same_probabilities(networks: int) -> None:
    model = trained(networks=networks)
    x = points().x
    probabilities = predict(model, x)
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(90))
    torch.testing.assert_close(predict_each(model, x).mean(dim=0), probabilities)
    blueprint = Blueprint.of(points(), params().network, networks)
    for restore, path in ((models.restore_net, "data/net.pkl"), (models.restore_params, "data/net_params.pkl")):
        assert torch.equal(predict(restore(path, blueprint).eval(), x), probabilities)
    assert torch.equal(predict(models.load("data/net_params.pkl"), x), probabilities)
    snapshots = history.read_snapshots("data/history.npz")
    assert snapshots.predictions.sum(axis=-1) == pytest.approx(np.ones(snapshots.predictions.shape[:2]), abs=1e-5)
    last = predict(model, torch.from_numpy(snapshots.x))
    assert snapshots.predictions[-1] == pytest.approx(last.numpy(), abs=1e-6)
    if networks > 1:
        assert snapshots.networks is not None
        assert snapshots.networks.mean(axis=1) == pytest.approx(snapshots.predictions, abs=1e-6)
        assert isinstance(model.net, Ensemble)
        with torch.no_grad():
            logits = model.net.networks(standardized()[0])
        torch.testing.assert_close(probabilities, logits.softmax(dim=-1).mean(dim=0), rtol=1e-4, atol=1e-5)
        assert not torch.allclose(probabilities, logits.mean(dim=0).softmax(dim=-1), atol=1e-4)


def with_layer_norm(n_feature: int, n_hidden: int, n_output: int) -> nn.Module:
    layers = nn.Linear(n_feature, n_hidden), nn.LayerNorm(n_hidden), nn.ReLU(), nn.Linear(n_hidden, n_output)
    return nn.Sequential(*layers)


def test_networks_with_layer_norm_learn_classes_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    for style in network.STYLES:
        monkeypatch.setitem(network.STYLES, style, with_layer_norm)
    model = trained(networks=3, optimizer="Adam", learning_rate=0.05, epochs=60)
    assert isinstance(model.net, Ensemble)
    assert not model.net.networks.batched
    probabilities = predict(model, points().x)
    classes = points().classes
    assert classes is not None
    assert probabilities.argmax(dim=1).eq(classes).float().mean() > 0.8


CASES: dict[str, dict[str, Any]] = {
    "one": {"optimizer": "Adam", "learning_rate": 0.05, "batch_size": 30},
    "several": {"networks": 3, "optimizer_options": {"momentum": 0.9}, "batch_size": 40},
    "validation": {
        "networks": 3,
        "validation_fraction": 0.3,
        "schedule": "StepLR",
        "schedule_options": {"step_size": 3},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_more_epochs_and_an_interrupted_training_end_with_the_bits_of_one_from_scratch(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def outputs(epochs: int) -> list[bytes]:
        trained(epochs=epochs, **CASES[case])
        stage.finish()
        return [Path(name).read_bytes() for name in OUTPUTS]

    expected = outputs(12)
    Path(FINISHED).unlink()
    outputs(5)
    assert outputs(12) == expected
    assert "Continuing" in capsys.readouterr().err
    Path(FINISHED).unlink()

    def stopped(*arguments: Any) -> Checkpoint:
        stops = Checkpoint(*arguments)
        stops.stopped = True
        return stops

    monkeypatch.setattr(stage, "Checkpoint", stopped)
    for _ in range(5):
        with pytest.raises(UserError, match="^stopped at epoch .*; `dvc repro` resumes from there$"):
            trained(epochs=12, **CASES[case])
    monkeypatch.setattr(stage, "Checkpoint", Checkpoint)
    assert outputs(12) == expected
    assert "Resuming from the checkpoint" in capsys.readouterr().err


def test_a_model_of_other_classes_or_of_amounts_is_refused_with_what_differs() -> None:
    trained()
    others = COLUMNS.model_copy(update={"targets": [Category(name="kind", levels=["few", "lots", "some"])]})
    for columns, difference in (
        (others, "stored.targets.0.levels.1 is 'many' instead of 'lots'"),
        (AMOUNTS, "stored.targets.0.name is 'kind' instead of 'u'"),
    ):
        blueprint = Blueprint.of(points(), params().network)._replace(columns=columns)
        for restore, path in ((models.restore_net, "data/net.pkl"), (models.restore_params, "data/net_params.pkl")):
            with pytest.raises(UserError) as caught:
                restore(path, blueprint)
            assert difference in str(caught.value)
            assert "\n" not in str(caught.value)


def test_a_loss_of_amounts_with_classes_and_the_other_way_round_are_one_line() -> None:
    with pytest.raises(UserError) as caught:
        stage.run(params(loss="MSELoss"))
    rule = "must be auto or CrossEntropyLoss for a category, got MSELoss"
    assert str(caught.value) == f"params.yaml: train.loss: {rule}"
    dataset.write("data/train.pt", points()._replace(columns=AMOUNTS))
    with pytest.raises(
        UserError, match="^params.yaml: train.loss: must be auto or MSELoss or .* for amounts, got Cross"
    ):
        stage.run(params(loss="CrossEntropyLoss"))


def test_the_stage_says_which_loss_it_chose_and_when_the_network_learned_only_the_shares() -> None:
    assert stage.run(params()).startswith("CrossEntropyLoss: loss ")
    assert stage.run(params(loss="CrossEntropyLoss")).startswith("loss ")
    shares = torch.tensor([15, 45, 30], dtype=torch.float64) / 90
    of_shares = -(shares * shares.log()).sum().item()
    said = stage.run(params(learning_rate=1e-6))
    assert f"no better than predicting the shares of the classes, whose loss is {of_shares:.4g}: raise " in said
    dataset.write("data/train.pt", points()._replace(columns=AMOUNTS))
    assert stage.run(params()).startswith("MSELoss: loss ")
