"""The example with a table: its params, its results, and what the pages show of them."""

import json
import re
from pathlib import Path

import pytest

from stages import params
from stages.evaluate import stage as evaluate
from stages.generate import stage as generate
from stages.generate.own_table import OwnTable
from stages.network import Network
from stages.plot import stage as plot
from stages.train import stage as train
from stages.train.settings import Train
from tests.conftest import PROJECT, Copy, same_bytes

EXAMPLE = PROJECT / "examples/auto-mpg"
README = (PROJECT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def example(copy: Copy) -> Copy:
    """A copy that the example has run in."""
    (copy.path / "params.yaml").write_bytes((EXAMPLE / "params.yaml").read_bytes())
    assert copy.repro() == ["generate", "train", "plot", "evaluate"]
    return copy


def test_the_params_of_the_example_name_every_key_but_the_other_way_to_test() -> None:
    document = params.load(str(EXAMPLE / "params.yaml"))
    for module in (generate, train, plot, evaluate):
        params.check("params.yaml", document, module.Params)
    assert document["generate"].keys() == OwnTable.model_fields.keys() - {"test_path"}
    assert document["train"].keys() == Train.model_fields.keys()
    assert document["network"].keys() == Network.model_fields.keys()


@same_bytes
def test_the_example_gives_its_results_and_the_code_of_the_readme_its_predictions(example: Copy) -> None:
    metrics = json.loads(example.read("data/metrics.json"))
    assert metrics == json.loads((EXAMPLE / "metrics.json").read_text(encoding="utf-8"))
    for name in ("data.png", "loss.png", "learning.gif"):
        assert example.read(f"data/plots/{name}") == (EXAMPLE / name).read_bytes()
    rows = {"network": metrics["targets"]["mpg"], "least squares": metrics["baselines"]["least_squares"]}
    for name, row in (rows | {"mean of the training rows": metrics["baselines"]["mean"]}).items():
        assert f"| {name} | {row['rmse']:.2f} | {row['mae']:.2f} | {row['r2']:.2f} |" in README

    command = re.findall(r"\$ (python -m stages.predict .*)", README)[0]
    example.run(*command.split())
    column = example.read("predictions.csv").decode().split()
    assert column[0] == "mpg"
    code = README.split("```python\n")[2].split("```")[0]
    for text in (code, code.replace("data/net.pkl", "data/net_params.pkl")):
        printed = re.findall(r"\[ *(-?\d+\.\d+)", example.run("python", "-c", text))
        assert [float(number) for number in printed[:3]] == pytest.approx(list(map(float, column[1:4])), abs=1e-3)

    code = README.split("```python\n")[3].split("```")[0].replace("net_params.pkl", "data/net_params.pkl")
    x = "[4, 97, 46, 1835, 20.5, 1970, 1, 0, 0], [4, 82, 46, 1950, 19.4, 1982, 0, 0, 1]"
    check = f"import torch\nfrom stages import models\nraw = x = torch.tensor([{x}])\n{code}\n"
    check += "assert torch.allclose(y.float(), models.load('data/net.pkl')(raw)), y"
    example.run("python", "-c", "\n".join(line.strip() for line in check.splitlines()))


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
        for change in ("", "4,97,46,1835,20.5,1970,europe,26\n"):
            (done.path / "data/raw/own.csv").write_text(table + change, encoding="utf-8")
            if tracked:
                done.run("dvc", "add", "data/raw/own.csv")
            assert done.repro("generate") == ["generate"]
            assert done.repro("generate") == []
    assert done.repro() == ["train", "plot", "evaluate"]
    done.run("dvc", "plots", "show")
    assert "least_squares" in done.run("dvc", "metrics", "diff")


def test_the_example_beside_the_lesson_leaves_it_as_it_is() -> None:
    recipe = (PROJECT / "Makefile").read_text(encoding="utf-8").split("\nexample:")[1].split("\n\n")[0]
    assert "git clone --quiet . .example" in recipe
    assert Path(".gitignore").read_text(encoding="utf-8").count("/.example/") == 1
