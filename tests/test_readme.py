"""The README shows the code as it is, and what its commands print, run in order in a fresh clone."""

import ast
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import IDENTITY, PROJECT, SAME_BYTES, Copy
from tests.markdown import blocks, commands, missing

README = PROJECT / "README.md"
STEPS, PREDICT, ELSEWHERE = (block.text for block in blocks(README, "python"))
EXAMPLE = PROJECT / "examples/auto-mpg"
INSTALLS = re.compile(r"python3 -m venv|source |python -m pip install")  # what takes minutes and a network
ONE_FILE = "--numprocesses=0 tests/test_columns.py"  # the suite is not to run itself


def bare(source: str) -> list[str]:
    """Return the lines of a module without docstrings, annotations and empty lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first, last = node.body[0].lineno - 1, node.body[0].end_lineno or node.body[0].lineno
            if ast.get_docstring(node) is not None:
                lines[first:last] = [""] * (last - first)
            for each in node.args.args:
                each.annotation = None
            head = " " * node.col_offset + f"def {node.name}({ast.unparse(node.args)}):"
            lines[node.lineno - 1] = head + "".join(lines[node.lineno - 1].partition("  #")[1:])
    return [line for line in lines if line]


def test_the_readme_shows_the_five_steps_as_they_are() -> None:
    source = (PROJECT / "stages/train/loop.py").read_text(encoding="utf-8")
    start = source.index("def backpropagate")
    assert [line for line in STEPS.splitlines() if line] == bare(source[start:])


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *map(str, Path("docs").glob("*.md"))])
def test_links_to_files_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([\w./-]+/[\w./-]*|[\w-]+\.\w+)[#)]", (PROJECT / page).read_text(encoding="utf-8"))
    assert links
    assert all((PROJECT / page).parent.joinpath(link).exists() for link in links)


@pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="the page shows commands of a shell and make")
def test_each_command_prints_what_the_page_shows(copy: Copy, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")  # with no settings of git
    clone = home / "clone"
    copy.run("git", "clone", "--quiet", *(f"--config={setting}" for setting in IDENTITY), ".", str(clone))
    copy.path = clone
    would_install = copy.run("make", "--dry-run", "PYTHON=python3", "repro")
    copy.link_environment()
    told = []
    for command in commands(README):
        if command.text.startswith("cd "):
            copy.path /= command.text.removeprefix("cd ")
        elif not INSTALLS.match(command.text):
            printed = copy.run("bash", "-c", command.text, HOME=str(home), PYTEST_ADDOPTS=ONE_FILE)
            told.append(missing(command, would_install + printed if command.text == "make repro" else printed))
        if command.text == "make repro":
            copy.commit("what the params of the tests give")  # nothing, unless those of the project were edited
    assert not any(told), "\n".join(filter(None, told))

    assert (clone / "sweeps/train.learning_rate-test_rmse.png").exists()
    assert copy.path == clone / ".example"
    if SAME_BYTES:
        check_the_results_of_the_example(copy)
    check_the_predictions_of_the_example(copy)
    copy.path = clone
    assert copy.repro() == []  # after the README's `git restore params.yaml`
    assert copy.run("git", "status", "--porcelain", "--", "data", "dvc.lock", "params.yaml") == ""


def check_the_results_of_the_example(example: Copy) -> None:
    metrics = json.loads(example.read("data/metrics.json"))
    assert metrics == json.loads((EXAMPLE / "metrics.json").read_text(encoding="utf-8"))
    for name in ("data.png", "loss.png", "learning.gif"):
        assert example.read(f"data/plots/{name}") == (EXAMPLE / name).read_bytes()
    network = {name: metrics[f"test_{name}"] for name in ("rmse", "mae", "r2")}
    rows = {"network": network, "least squares": metrics["baselines"]["least_squares"]}
    for name, row in (rows | {"mean of the training rows": metrics["baselines"]["mean"]}).items():
        line = f"| {name} | {row['rmse']:.2f} | {row['mae']:.2f} | {row['r2']:.2f} |"
        assert line in README.read_text(encoding="utf-8")


def check_the_predictions_of_the_example(example: Copy) -> None:
    """Check that the two snippets predict what the command of the README has written, or what the network says."""
    column = example.read("predictions.csv").decode().split()
    assert column[0] == "mpg"
    for code in (PREDICT, PREDICT.replace("data/net.pkl", "data/net_params.pkl")):
        printed = re.findall(r"\[ *(-?\d+\.\d+)", example.run("python", "-c", code))
        assert [float(number) for number in printed[:3]] == pytest.approx(list(map(float, column[1:4])), abs=1e-3)

    x = "[4, 97, 46, 1835, 20.5, 1970, 1, 0, 0], [4, 82, 46, 1950, 19.4, 1982, 0, 0, 1]"
    check = f"import torch\nfrom stages import models\nraw = x = torch.tensor([{x}])\n"
    check += ELSEWHERE.replace("net_params.pkl", "data/net_params.pkl")
    check += "assert torch.allclose(y.float(), models.load('data/net.pkl')(raw)), y"
    example.run("python", "-c", check)
