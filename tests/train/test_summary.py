"""What the stage says of a training, beside what the saved network computes."""

import re
from pathlib import Path

import pytest
from torch import nn

from stages import dataset, models, network
from stages.dataset import Dataset
from stages.train.validation import hold_back
from tests.train.test_stage import SETTINGS, losses, run, write_points

WRITTEN = " -> data/net.pkl, data/net_params.pkl"


@pytest.fixture(autouse=True)
def in_folder_with_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_points(100)


def mse_of_saved(points: Dataset) -> float:
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
    _, held_back = hold_back(dataset.read("data/train.pt"), 0.3, SETTINGS["seed"])
    assert held_back
    validation = losses("validation_loss")
    lowest = f"lowest validation loss {min(validation):.4g} at epoch {validation.index(min(validation))}"
    found = re.fullmatch(rf"{lowest} of {len(validation)}, (\S+) times the noise floor{WRITTEN}", told)
    assert found
    assert float(found[1]) == pytest.approx(mse_of_saved(held_back) / (0.2**2 / 12), rel=1e-3)


def test_the_noise_floor_is_left_out_of_other_losses_and_where_it_is_unknown() -> None:
    assert re.fullmatch(rf"loss \S+ after 1 epoch{WRITTEN}", run(loss="L1Loss", epochs=1))
    points = dataset.read("data/train.pt")
    dataset.write("data/train.pt", points._replace(noise_variance=None))
    assert re.fullmatch(rf"loss \S+ after 2 epochs{WRITTEN}", run(epochs=2))
