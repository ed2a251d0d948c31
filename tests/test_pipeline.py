"""The DAG as a whole, by real runs of DVC in a copy of the project."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import load_yaml
from pydantic import BaseModel

from tests.conftest import PROJECT, Copy
from tools import params_schema

STAGES = load_yaml(str(PROJECT / "dvc.yaml"))["stages"]
PARAMS = load_yaml(str(PROJECT / "params.yaml"))


def imports(path: str) -> set[str]:
    """Return the modules of stages/ that a module imports, directly or not, itself among them."""
    found: set[str] = set()

    def visit(path: str) -> None:
        if path in found or not (PROJECT / path).is_file():
            return
        found.add(path)
        for node in ast.walk(ast.parse((PROJECT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "stages":
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith("stages.")]
            else:
                continue
            for name in names:
                visit(f"{name.replace('.', '/')}.py")

    visit(path)
    return found


def leaves(value: Any, prefix: str = "") -> Iterator[str]:
    """Return the dotted names of all values below a mapping or a schema."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        value = {name: field.annotation for name, field in value.model_fields.items()}
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from leaves(below, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_depends_on_every_module_it_imports(stage: str) -> None:
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")}
    assert declared == imports("stages/__main__.py") | imports(f"stages/{stage}.py")


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_declares_exactly_the_params_it_reads(stage: str) -> None:
    schema = importlib.import_module(f"stages.{stage}").Params
    declared = {name: PARAMS[name] for name in STAGES[stage]["params"]}
    assert set(leaves(declared)) == set(leaves(schema))


def test_each_file_a_stage_reads_or_writes_is_declared() -> None:
    for stage, declared in STAGES.items():
        outs = [
            out if isinstance(out, str) else next(iter(out))
            for kind in ("outs", "metrics", "plots")
            for out in declared.get(kind, [])
        ]
        named = set(re.findall(r'"(data/[\w./]+)"', (PROJECT / f"stages/{stage}.py").read_text(encoding="utf-8")))
        declared_files = {name for name in [*declared["deps"], *outs] if name.startswith("data/")}
        assert {name for name in named if not name.startswith("data/plots/")} == declared_files - {"data/plots"}


def test_the_params_schema_for_editors_is_current() -> None:
    assert (PROJECT / "params.schema.json").read_text(encoding="utf-8") == params_schema.text()
    assert "$schema=params.schema.json" in (PROJECT / "params.yaml").read_text(encoding="utf-8")


def test_the_committed_results_are_those_of_a_run_from_nothing(trained: Copy) -> None:
    assert trained.run("git", "status", "--porcelain") == ""
    assert trained.run("dvc", "status") == "Data and pipelines are up to date.\n"


def test_a_second_run_in_another_folder_by_force_gives_the_same_bytes(trained: Copy, tmp_path: Path) -> None:
    copy = trained.twin(tmp_path / "a folder, with ünusual (name)")
    assert copy.repro("--force") == list(STAGES)
    assert copy.run("git", "status", "--porcelain") == ""


def test_what_reruns_after_each_kind_of_change(done: Copy) -> None:
    copy, lock = done, done.read("dvc.lock")
    assert copy.repro() == []
    copy.set(plot__dpi=50)
    assert copy.repro() == ["plot"]
    copy.set(train__learning_rate=0.1)
    assert copy.repro() == ["train", "plot", "evaluate"]
    copy.set(generate__test_points=500)
    assert copy.repro() == ["generate", "evaluate"]
    copy.set(network__hidden=20)
    assert copy.repro() == ["train", "plot", "evaluate"]

    copy.set(plot__dpi=100, train__learning_rate=0.2, generate__test_points=1000, network__hidden=10)
    assert copy.repro() == []  # all of it is restored from the run cache
    assert copy.read("dvc.lock") == lock


def test_editing_a_stage_reruns_it_and_what_depends_on_it(done: Copy) -> None:
    for module, stages in {"plot": ["plot"], "evaluate": ["evaluate"]}.items():
        path = done.path / f"stages/{module}.py"
        path.write_text(path.read_text(encoding="utf-8") + "# edited\n", encoding="utf-8")
        assert done.repro() == stages


def test_metrics_params_and_experiments_can_be_compared(done: Copy) -> None:
    done.run("dvc", "exp", "run", "-n", "slower", "-S", "train.learning_rate=1e-2", "-S", "train.epochs=100")
    assert "test_mse" in done.run("dvc", "metrics", "diff", "HEAD")
    changed = done.run("dvc", "params", "diff", "HEAD")
    assert "train.learning_rate" in changed
    assert "0.01" in changed
    assert "slower" in done.run("dvc", "exp", "show", "--csv")
    page = Path(done.run("dvc", "plots", "diff", "HEAD").split("file://")[1].strip()).read_text(encoding="utf-8")
    for shown in ("Training loss", "Predictions on the test points", "learning.gif", "100.png", "data.png"):
        assert shown in page
