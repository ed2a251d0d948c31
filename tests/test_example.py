"""The example with a table: its params, and the way there and back; tests/test_readme.py runs it."""

from pathlib import Path

import numpy as np
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
from tests.conftest import PROJECT, Copy, links

EXAMPLE = PROJECT / "examples/auto-mpg"


def test_the_params_of_the_example_name_every_key_but_those_for_uncommon_cases() -> None:
    document = params.load(str(EXAMPLE / "params.yaml"))
    for module in (generate, train, plot, evaluate):
        params.check("params.yaml", document, module.Params)
    uncommon = {"categories", "missing", "day_first", "encoding", "test_path", "test_latest"}
    assert document["generate"].keys() == OwnTable.model_fields.keys() - uncommon
    assert document["train"].keys() == Train.model_fields.keys() - {"steps"}
    assert document["network"].keys() == Network.model_fields.keys()


def test_the_lesson_comes_back_from_the_cache(done: Copy) -> None:
    lesson = {name: done.read(name) for name in ("params.yaml", "dvc.lock", "data/net.pkl", "data/plots/data.png")}
    shorter = (EXAMPLE / "params.yaml").read_text(encoding="utf-8").replace("epochs: 2000 ", "epochs: 3 ")
    (done.path / "params.yaml").write_text(shorter, encoding="utf-8")
    assert done.repro() == ["generate", "train", "plot", "evaluate"]
    (done.path / "params.yaml").write_bytes(lesson["params.yaml"])
    assert done.repro() == []
    assert {name: done.read(name) for name in lesson} == lesson


def test_a_table_that_changes_runs_again_whether_dvc_tracks_it_or_not(done: Copy) -> None:
    shorter = (EXAMPLE / "params.yaml").read_text(encoding="utf-8").replace("epochs: 2000 ", "epochs: 3 ")
    (done.path / "params.yaml").write_text(shorter.replace("raw/auto-mpg.csv ", "raw/own.csv "), encoding="utf-8")
    table = (done.path / "data/raw/auto-mpg.csv").read_text(encoding="utf-8")
    for tracked in (False, True):
        for change in ("", "4,97,46,1835,20.5,1970,europe,own car,26\n"):
            (done.path / "data/raw/own.csv").write_text(table + change, encoding="utf-8")
            if tracked:
                done.run("dvc", "add", "data/raw/own.csv")
            assert done.repro("generate") == ["generate"]
            assert done.repro("generate") == []
    assert done.repro() == ["train", "plot", "evaluate"]
    done.run("dvc", "plots", "show")
    assert "least_squares" in done.run("dvc", "metrics", "diff")


@links
def test_the_example_runs_in_a_folder_with_spaces_and_chinese_letters(trained: Copy, tmp_path: Path) -> None:
    copy = trained.twin(tmp_path / "房价 of 2024")
    shorter = (EXAMPLE / "params.yaml").read_text(encoding="utf-8").replace("epochs: 2000 ", "epochs: 3 ")
    (copy.path / "examples/auto-mpg/params.yaml").write_text(shorter, encoding="utf-8")
    copy.link_environment()
    said = copy.run("make", "example", LC_ALL="C")
    assert '"least_squares"' in said
    assert (copy.path / ".example/data/plots/learning/3.png").exists()
    copy.run("python", "-m", "tools.report", LC_ALL="C")


def test_the_last_picture_shows_the_network_that_was_saved(done: Copy) -> None:
    shorter = (EXAMPLE / "params.yaml").read_text(encoding="utf-8").replace("epochs: 2000 ", "epochs: 300 ")
    (done.path / "params.yaml").write_text(shorter, encoding="utf-8")
    done.repro("plot")
    snapshots = history.read_snapshots(str(done.path / "data/history.npz"))
    losses = history.read_losses(str(done.path / "data/loss.csv"))
    assert losses["validation_loss"].argmin() < 299  # the weights that were kept are not those of the last step
    saved = models.load(str(done.path / "data/net.pkl"))
    with torch.no_grad():
        np.testing.assert_allclose(snapshots.predictions[-1], saved(torch.from_numpy(snapshots.x)), rtol=1e-5)
