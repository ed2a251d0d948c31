"""What checks the project: `make check`, and the workflow for GitHub."""

import json
import os
import re
import shutil
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml

from tests.conftest import PROJECT, Copy
from tests.test_compare import commit_errors, drawn
from tools.compare.change import BETTER

WORKFLOW: dict[str, Any] = load_yaml(str(PROJECT / ".github/workflows/ci.yml"))
needs_make = pytest.mark.skipif(os.name == "nt" or not shutil.which("make"), reason="no make")


def make(copy: Copy, target: str, status: int = 0) -> str:
    """Run make in a copy, with the packages that are installed here."""
    copy.link_environment()
    return copy.run("make", "--no-print-directory", target, status=status)  # `make test` counts as a level above


@needs_make
def test_a_current_pipeline_passes_without_a_word(done: Copy) -> None:
    assert make(done, "current") == ""


@needs_make
@pytest.mark.parametrize("target", ["current", "check"])
def test_a_stale_pipeline_fails_the_check_and_says_what_to_do(done: Copy, target: str) -> None:
    done.set(plot__dpi=50)
    told = make(done, target, status=2)
    assert "changed deps" in told
    files = "dvc.lock, data/metrics.json and data/errors.csv"
    assert f"The pipeline is stale: run `make repro`, then commit {files}.\n" in told
    assert "ruff" not in told


@needs_make
def test_an_environment_behind_a_link_is_refused_and_left_as_it_is(copy: Copy) -> None:
    others = copy.path.parent / "others"
    (others / "bin").mkdir(parents=True)
    (others / "bin/kept").touch()
    for name in (".venv", ".venv-bench"):
        (copy.path / name).symlink_to(others)
        target = "bench" if name == ".venv-bench" else "current"
        output = copy.run("make", "--no-print-directory", target, status=2)
        assert output.startswith(f"{name}: is a link to another environment: remove the link, then run make again\n")
    assert [path.name for path in others.rglob("*")] == ["bin", "kept"]


@needs_make
def test_an_outdated_environment_keeps_what_is_in_it(copy: Copy) -> None:
    (copy.path / ".venv").mkdir()
    (copy.path / ".venv/kept").touch()
    for path in copy.path.glob("**/requirements*.txt"):
        path.write_text("")
    copy.run("make", ".venv/ready")
    assert (copy.path / ".venv/kept").exists()
    assert (copy.path / ".venv/ready").exists()


def test_the_workflow_runs_what_make_check_runs_on_the_systems_and_pythons_that_are_supported() -> None:
    job = WORKFLOW["jobs"]["check"]
    assert [name.split("-")[0] for name in job["strategy"]["matrix"]["os"]] == ["ubuntu", "macos", "windows"]
    oldest, newest = job["strategy"]["matrix"]["python"]
    assert f"Python {oldest} to {newest}" in (PROJECT / "README.md").read_text(encoding="utf-8")
    commands = [step["run"] for step in job["steps"] if "run" in step and "if" not in step]
    recipes = re.findall(r"\t\.venv/bin/(ruff.*|mypy|python -m pytest)\n", (PROJECT / "Makefile").read_text("utf-8"))
    assert set(recipes) <= set(commands)
    assert len(recipes) == 4


def test_the_workflow_may_only_read_and_pins_what_it_uses() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    for job in WORKFLOW["jobs"].values():
        assert "permissions" not in job
        for used in [step["uses"] for step in job["steps"] if "uses" in step]:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}|docker://[\w/]+:[\d.]+", used)


@pytest.mark.skipif(os.name == "nt", reason="this job runs on Linux only")
def test_a_pull_request_shows_what_it_changes_in_metrics_and_params(copy: Copy) -> None:
    commit_errors(copy, drawn(1, 20, 1.0))
    metrics = json.loads(copy.read("data/metrics.json"))
    (copy.path / "data/metrics.json").write_text(json.dumps(metrics | {"test_mse": metrics["test_mse"] + 1}))
    commit_errors(copy, drawn(2, 20, 0.5), train__learning_rate=0.1)
    script = WORKFLOW["jobs"]["compare"]["steps"][-1]["run"]
    summary = copy.path.parent / "summary"
    copy.run("bash", "-e", "-o", "pipefail", "-c", script, GITHUB_STEP_SUMMARY=str(summary))
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in summary.read_text().splitlines() if "|" in line
    ]
    assert rows[0] == ["Path", "Metric", "base", "change", "Change"]
    assert rows[2][:2] == ["data/metrics.json", "test_mse"]
    assert float(rows[2][4]) == 1
    assert rows[3] == ["Path", "Param", "base", "change"]
    assert rows[5] == ["params.yaml", "train.learning_rate", "0.2", "0.1"]
    assert rows[8:10] == [["base", "20", "train.learning_rate=0.2"], ["change", "20", "train.learning_rate=0.1"]]
    assert [row[-1] for row in rows[12:]] == ["", BETTER, "", BETTER]
