"""What the stage says of a training, beside what the saved network computes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stages import dataset, models, network
from stages.columns import unnamed
from stages.dataset import Dataset
from stages.train.batches import Points
from stages.train.summary import loss_of_mean, summary
from tests.train.batched import split
from tests.train.test_stage import SETTINGS, losses, run, write_points

pytestmark = pytest.mark.slow  # it trains again and again

WRITTEN = " -> data/net.pkl, data/net_params.pkl"


@pytest.fixture(autouse=True)
def in_folder_with_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)


def mse_of_saved(points: Dataset | Points) -> float:
    return nn.functional.mse_loss(network.predict(models.load("data/net.pkl"), points.x), points.y).item()


@pytest.mark.parametrize("standardize", [False, True])
def test_it_says_the_final_loss_and_how_many_times_the_noise_floor_it_is(standardize: bool) -> None:
    found = re.fullmatch(
        rf"loss (\S+) after 20 epochs, (\S+) times the noise floor{WRITTEN}", run(standardize=standardize)
    )
    points = dataset.read("data/train.pt")
    mse = mse_of_saved(points)
    units = points.y.var(correction=0).item() if standardize else 1.0
    assert found
    assert float(found[1]) == pytest.approx(mse / units, rel=1e-3)
    assert float(found[2]) == pytest.approx(mse / (0.2**2 / 12), rel=1e-3)


@pytest.mark.parametrize("standardize", [False, True])
def test_with_validation_it_says_the_lowest_validation_loss_and_its_epoch(standardize: bool) -> None:
    told = run(standardize=standardize, validation_fraction=0.3, epochs=50, patience=10, learning_rate=0.4)
    _, held_back = split(dataset.read("data/train.pt"), 0.3, SETTINGS["seed"])
    assert held_back
    validation = losses("validation_loss")
    lowest = f"lowest validation loss {min(validation):.4g} at epoch {validation.index(min(validation))}"
    found = re.fullmatch(rf"{lowest} of {len(validation)}, (\S+) times the noise floor{WRITTEN}", told)
    assert found
    assert float(found[1]) == pytest.approx(mse_of_saved(held_back) / (0.2**2 / 12), rel=1e-3)


@pytest.mark.parametrize("loss", ["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"])
@pytest.mark.parametrize("changes", [{}, {"standardize": True}, {"validation_fraction": 0.3}])
def test_a_training_that_ends_no_better_than_predicting_the_mean_says_so(loss: str, changes: dict[str, Any]) -> None:
    told = run(loss=loss, learning_rate=1e-6, seed=7, **changes)  # from first weights that predict worse than the mean
    points, held_back = split(dataset.read("data/train.pt"), changes.get("validation_fraction", 0), seed=7)
    y = points.y.double()
    judged = held_back.y.double() if held_back else y
    unit = y.std(correction=0) if "standardize" in changes else 1.0
    mean = getattr(nn, loss)()(y.mean().expand_as(judged) / unit, judged / unit).item()
    cure = "raise train.epochs or train.learning_rate"
    assert f"; no better than predicting the mean, whose loss is {mean:.4g}: {cure} ->" in told
    assert "predicting the mean" not in run(loss=loss, seed=7, epochs=100, **changes)


LOWER = "; no better than predicting the mean, whose loss is 0.09083: lower train.learning_rate"


def test_a_loss_that_rose_asks_for_a_lower_learning_rate() -> None:
    assert f"{LOWER} ->" in run(optimizer_options={"maximize": True}, learning_rate=0.1, epochs=5)


def test_a_network_whose_neurons_have_all_died_is_no_better_than_the_mean() -> None:
    points = dataset.read("data/train.pt")
    mean = loss_of_mean("MSELoss", points.y, points.y)
    for final in (mean * (1 - 1e-7), mean, mean * (1 + 1e-7)):  # it predicts the mean, up to rounding
        told = summary(
            {"loss": [0.1, 7.0, mean]}, [], final, "MSELoss", points, None, nn.Linear(1, 1), standardize=False
        )
        assert told == f"loss {mean:.4g} after 3 epochs, 27.25 times the noise floor{LOWER}"


def test_a_network_that_fits_noise_is_told_from_one_that_has_not_learned() -> None:
    points = dataset.read("data/train.pt")
    noise = torch.randn(points.y.shape, generator=torch.Generator().manual_seed(0))
    dataset.write("data/train.pt", points._replace(y=noise + 3, noise_variance=None))
    told = run(optimizer="Adam", learning_rate=0.03, epochs=300, validation_fraction=0.5)
    assert "lower network.hidden or train on more points, since the network only fits these ->" in told


def test_the_loss_of_the_mean_is_the_variance_of_y() -> None:
    y = dataset.read("data/train.pt").y
    assert loss_of_mean("MSELoss", y, y) == pytest.approx(y.double().var(correction=0).item())


def test_a_table_that_is_not_standardized_may_need_to_be() -> None:
    points = dataset.read("data/train.pt")
    dataset.write("data/train.pt", points._replace(y=points.y + 100, noise_variance=None))
    falling = "; no better than predicting the mean, whose loss is .*: raise train.epochs or train.learning_rate"
    assert re.search(f"{falling} ->", run(learning_rate=1e-4))
    columns = unnamed(1, 1)
    dataset.write("data/train.pt", points._replace(y=points.y + 100, noise_variance=None, columns=columns))
    assert re.search(f"{falling}, or set network.standardize to true ->", run(learning_rate=1e-4))


def test_where_all_y_are_equal_there_is_nothing_to_learn_but_the_mean() -> None:
    points = dataset.read("data/train.pt")
    dataset.write("data/train.pt", points._replace(y=torch.full_like(points.y, 0.1)))
    assert "predicting the mean" not in run()


def test_the_noise_floor_is_left_out_of_other_losses_and_where_it_is_unknown() -> None:
    assert re.fullmatch(rf"loss \S+ after 1 epoch{WRITTEN}", run(loss="L1Loss", epochs=1))
    points = dataset.read("data/train.pt")
    dataset.write("data/train.pt", points._replace(noise_variance=None))
    assert re.fullmatch(rf"loss \S+ after 2 epochs{WRITTEN}", run(epochs=2))
