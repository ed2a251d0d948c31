"""The README fits one sitting, and shows the code as it is and what its commands print, run in order in a clone."""

import ast
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from stages.runtime import params
from tests.conftest import IDENTITY, LESSON, PROJECT, SAME_BYTES, Copy
from tests.markdown import blocks, commands, difference

README = PROJECT / "README.md"
PAGES = [
    "README.md",
    "README.zh-CN.md",
    "CONTRIBUTING.md",
    *(f"docs/{path.name}" for path in PROJECT.glob("docs/*.md")),
]
(STEPS,) = (block.text for block in blocks(README, "python"))
(PREDICT,) = (block.text for block in blocks(PROJECT / "docs/tables.md", "python"))
EXAMPLE = PROJECT / "examples/auto-mpg"
INSTALLS = re.compile(r"python3 -m venv|source |python -m pip install")  # takes minutes and a network
ONE_FILE = "--numprocesses=0 tests/columns/test_cells.py"  # so that the suite does not run itself


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_readme_has_at_most_180_lines(name: str) -> None:
    assert len((PROJECT / name).read_text(encoding="utf-8").splitlines()) <= 180


def without_annotations(source: str) -> list[str]:
    """Return the lines of a module without annotations, docstrings and empty lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            first, last = node.body[0].lineno - 1, node.body[0].end_lineno or node.body[0].lineno
            if ast.get_docstring(node) is not None:
                lines[first:last] = [""] * (last - first)
            for argument in node.args.args:
                argument.annotation = None
            head = " " * node.col_offset + f"def {node.name}({ast.unparse(node.args)}):"
            lines[node.lineno - 1] = head + "".join(lines[node.lineno - 1].partition("  #")[1:])
    return [line for line in lines if line]


def test_the_readme_shows_the_five_steps_as_they_are() -> None:
    source = (PROJECT / "stages/train/loop.py").read_text(encoding="utf-8")
    start = source.index("def backpropagate")
    assert [line for line in STEPS.splitlines() if line] == without_annotations(source[start:])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    prose = re.sub(r"(?ms)^ *```.*?^ *```$", "", (PROJECT / page).read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", prose)
    assert links
    for name, anchor in links:
        file = (PROJECT / page).parent / name
        assert file.exists(), name
        assert not anchor or anchor in anchors(file), f"{name}#{anchor}"


def anchors(page: Path) -> list[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.+)", page.read_text(encoding="utf-8"))
    return [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]


def test_the_page_about_the_params_names_every_key_and_its_default() -> None:
    text = (PROJECT / "docs/params.md").read_text(encoding="utf-8")
    schema = json.loads((PROJECT / "params.schema.json").read_text(encoding="utf-8"))["$defs"]
    lesson = params.load(str(LESSON))
    sections = {"generate": "Curve", "network": "Network", "train": "Train", "plot": "Plot"}
    lesson_part, _, table_part = text.partition("## A table of your own")
    page = defaults_on(lesson_part)
    for section, name in sections.items():
        for key, rules in schema[name]["properties"].items():
            value = lesson[section][key] if key in lesson[section] else rules["default"]
            assert f"{section}.{key}" in page, f"docs/params.md has no row for {section}.{key}"
            assert page.pop(f"{section}.{key}") == (value if isinstance(value, str) else json.dumps(value))
    assert page.pop("kernels") == lesson["kernels"]
    assert not page
    table = schema["OwnTable"]
    expected = {name: json.dumps(rules.get("default", [])) for name, rules in table["properties"].items()}
    expected |= dict.fromkeys(table["required"], "required")
    del expected["source"]
    assert defaults_on(table_part) == {f"generate.{name}": value for name, value in expected.items()}


def defaults_on(page: str) -> dict[str, str]:
    """Return the keys in the tables of a page, and the default of each."""
    defaults: dict[str, str] = {}
    for names, values in re.findall(r"(?m)^\| (`.+?) \| (.+?) \| ", page):
        first = names.split("`")[1]
        for name, value in zip(re.findall("`(.+?)`", names), re.split(", ", values), strict=True):
            defaults[first.partition(".")[0] + name if name.startswith(".") else name] = value.split(": ")[-1].strip(
                "`"
            )
    return defaults


@pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="the page shows commands of a shell and make")
def test_each_command_prints_what_the_page_shows(copy: Copy, tmp_path_factory: pytest.TempPathFactory) -> None:
    """In a folder with a space and Chinese letters."""
    home = tmp_path_factory.mktemp("home")  # git has no settings there
    users = {"HOME": str(home), "LC_ALL": "C", "PYTEST_ADDOPTS": ONE_FILE}
    clone = home / "房价 of 2024"
    copy.run("git", "clone", "--quiet", *(f"--config={setting}" for setting in IDENTITY), ".", str(clone))
    copy.path = clone
    copy.link_environment()
    differences = []
    for command in commands(README):
        if command.text.startswith("cd "):
            copy.path /= command.text.removeprefix("cd ")
        elif not INSTALLS.match(command.text):
            # `make repro` has started the stages so; those of an experiment can run in forks.
            printed = copy.run("bash", "-c", command.text, status=0, **({} if "exp run" in command.text else users))
            differences.append(difference(command, printed))
        if command.text == "make repro":
            copy.commit("results of the lesson's params")  # which the project's params may not be
    assert not any(differences), "\n".join(filter(None, differences))

    assert copy.path == clone / ".example"
    if SAME_BYTES:
        check_the_results_of_the_example(copy)
    check_the_predictions_of_the_example(copy)
    copy.run("python", "-m", "tools.report", LC_ALL="C")
    copy.path = clone
    assert copy.repro() == []  # after the README's `git restore params.yaml`
    assert copy.run("git", "status", "--porcelain", "--", "data", "dvc.lock", "params.yaml") == ""


def check_the_results_of_the_example(example: Copy) -> None:
    metrics = json.loads(example.read("data/metrics.json"))
    assert metrics == json.loads((EXAMPLE / "metrics.json").read_text(encoding="utf-8"))
    for name in ("data.png", "loss.png", "learning.gif"):
        assert example.read(f"data/plots/{name}") == (EXAMPLE / name).read_bytes()
    errors = " | ".join(f"{metrics[f'test_{name}']:.2f} ± {metrics[f'test_{name}_se']:.2f}" for name in ("rmse", "mae"))
    lines = [f"| mean of ten networks | {errors} | {metrics['test_r2']:.2f} |"]
    for name, baseline in (("least squares", "least_squares"), ("mean of the training rows", "mean")):
        row = metrics["baselines"][baseline]
        lines.append(f"| {name} | {row['rmse']:.2f} | {row['mae']:.2f} | {row['r2']:.2f} |")
    assert "\n".join(lines) in README.read_text(encoding="utf-8")


def check_the_predictions_of_the_example(example: Copy) -> None:
    """Check that the snippet of docs/tables.md predicts what the command has written, with either file."""
    column = example.read("predictions.csv").decode().split()
    assert column[0] == "mpg"
    for code in (PREDICT, PREDICT.replace("data/net.pkl", "data/net_params.pkl")):
        printed = re.findall(r"-?\d+\.\d+", example.run("python", "-c", code))
        assert [float(number) for number in printed[:3]] == pytest.approx(list(map(float, column[1:4])), abs=1e-3)
