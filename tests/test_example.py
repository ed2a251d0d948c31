"""The example with a table: its params, and the way there and back; tests/test_readme.py runs all of it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from stages import history, models
from stages.evaluate import stage as evaluate
from stages.generate import stage as generate
from stages.generate.own_table import OwnTable
from stages.network import Network
from stages.plot import stage as plot
from stages.runtime import params
from stages.train import stage as train
from stages.train.settings import Train
from tests.conftest import PROJECT, Copy

EXAMPLE = PROJECT / "examples/auto-mpg"
PENGUINS = PROJECT / "examples/penguins"


@pytest.mark.parametrize("example", [EXAMPLE, PENGUINS], ids=lambda folder: folder.name)
def test_the_params_of_an_example_name_every_key_but_those_for_uncommon_cases(example: Path) -> None:
    document = params.load(str(example / "params.yaml"))
    for module in (generate, train, plot, evaluate):
        params.check("params.yaml", document, module.Params)
    uncommon = {"categories", "missing", "day_first", "encoding", "test_path", "test_latest"}
    assert document["generate"].keys() == OwnTable.model_fields.keys() - uncommon
    assert document["train"].keys() == Train.model_fields.keys() - {"steps"}
    assert document["network"].keys() == Network.model_fields.keys()


def test_the_examples_differ_in_the_table_alone() -> None:
    amounts, classes = (params.load(str(example / "params.yaml")) for example in (EXAMPLE, PENGUINS))
    assert {key for key in amounts if amounts[key] != classes[key]} == {"generate"}
    own = {key for key in amounts["generate"] if amounts["generate"][key] != classes["generate"][key]}
    assert own == {"path", "target"}


def test_the_species_of_penguins_are_learnt_and_predicted(copy: Copy) -> None:
    shorter = (PENGUINS / "params.yaml").read_text(encoding="utf-8").replace("epochs: 2000 ", "epochs: 100 ")
    (copy.path / "params.yaml").write_text(shorter, encoding="utf-8")
    assert "generate: species: 3 classes\n" in copy.stage("generate")
    said = copy.stage("train")
    assert said.startswith("train: CrossEntropyLoss: lowest validation loss 0.")
    assert "mean of 10 networks" in said
    command = [
        "python",
        "-m",
        "stages.predict",
        "data/net_params.pkl",
        "data/raw/penguins.csv",
        "-o",
        "predictions.csv",
    ]
    assert copy.run(*command) == ""
    table, predictions = (copy.path / name for name in ("data/raw/penguins.csv", "predictions.csv"))
    with table.open(newline="") as truth, predictions.open(newline="") as predicted:
        pairs = [*zip(csv.DictReader(truth), csv.DictReader(predicted), strict=True)]
    assert sum(own["species"] == other["species"] for own, other in pairs) > 330
    assert [*pairs[0][1]] == ["species", "species=Adelie", "species=Chinstrap", "species=Gentoo"]


@pytest.fixture(scope="module")
def example(trained: Copy, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy that was trained on the example's table after the lesson, which no test changes."""
    copy = trained.twin(tmp_path_factory.mktemp("example"))
    shorter = (EXAMPLE / "params.yaml").read_text(encoding="utf-8").replace("epochs: 2000 ", "epochs: 300 ")
    (copy.path / "params.yaml").write_text(shorter, encoding="utf-8")
    assert copy.repro() == ["generate", "train", "plot", "evaluate"]
    return copy


def test_the_lesson_comes_back_from_the_cache(trained: Copy, example: Copy, tmp_path: Path) -> None:
    copy = example.twin(tmp_path)
    assert "least_squares" in copy.run("dvc", "metrics", "diff")
    copy.run("dvc", "plots", "show")
    (copy.path / "params.yaml").write_bytes(trained.read("params.yaml"))
    assert copy.repro() == []
    for name in ("dvc.lock", "data/net.pkl", "data/plots/data.png"):
        assert copy.read(name) == trained.read(name) != example.read(name)


def test_a_table_that_changes_runs_again_whether_dvc_tracks_it_or_not(done: Copy) -> None:
    text = (EXAMPLE / "params.yaml").read_text(encoding="utf-8")
    (done.path / "params.yaml").write_text(text.replace("raw/auto-mpg.csv ", "raw/own.csv "), encoding="utf-8")
    table = (done.path / "data/raw/auto-mpg.csv").read_text(encoding="utf-8")
    for tracked in (False, True):
        for change in ("", "4,97,46,1835,20.5,1970,europe,own car,26\n"):
            (done.path / "data/raw/own.csv").write_text(table + change, encoding="utf-8")
            if tracked:
                done.run("dvc", "add", "data/raw/own.csv")
            assert done.repro("generate") == ["generate"]
            assert done.repro("generate") == []


def test_the_last_picture_shows_the_network_that_was_saved(example: Copy) -> None:
    snapshots = history.read_snapshots(str(example.path / "data/history.npz"))
    losses = history.read_losses(str(example.path / "data/loss.csv"))
    assert losses["validation_loss"].argmin() < 299  # the weights that were kept are not those of the last step
    saved = models.load(str(example.path / "data/net.pkl"))
    with torch.no_grad():
        np.testing.assert_allclose(snapshots.predictions[-1], saved(torch.from_numpy(snapshots.x)), rtol=1e-5)
