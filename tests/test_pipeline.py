"""The DAG as a whole, by real runs of DVC in a copy of the project."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
import torch
from dvc.utils.serialize import load_yaml
from pydantic import BaseModel

from stages import dataset
from stages.dataset import Dataset
from stages.runtime.params import SECTIONS, StageParams
from tests.conftest import LESSON, PROJECT, Copy, same_bytes
from tools import params_schema

STAGES = load_yaml(str(PROJECT / "dvc.yaml"))["stages"]
PARAMS = load_yaml(str(LESSON))
SHARED_ROOMS = {"columns", "runtime", "tables"}  # folders of stages/ that are no stage


@cache
def imported(path: str) -> frozenset[str]:
    """Return the modules that a module names in its imports: `torch`, `stages/runtime/files.py`."""
    names = []
    for node in ast.walk(ast.parse((PROJECT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    own = [name.replace(".", "/") for name in names if name.split(".")[0] == "stages"]
    ours = {f"{name}{ending}" for name in own for ending in (".py", "/__init__.py")} - {"stages/__init__.py"}
    others = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"stages"}
    return frozenset({path for path in ours if (PROJECT / path).is_file()} | others)


def needs(path: str) -> set[str]:
    """Return what a module imports, directly or not, itself among it."""
    found: set[str] = set()
    waiting = {path}
    while waiting:
        path = waiting.pop()
        found.add(path)
        waiting |= imported(path) - found if path.endswith(".py") else set()
    return found


def room(path: str) -> str:
    """Return the folder of stages/ that a module is in; the module itself where it is beside the folders."""
    return "/".join(path.split("/")[:2])


def leaves(value: Any, prefix: str = "", *, required: bool = False) -> Iterator[str]:
    """Return the dotted names of all values below a mapping or a schema; of several, the first, the lesson's.

    If `required`, leave out those that a schema allows to be absent.
    """
    value = next(iter(get_args(value)), value) if isinstance(value, UnionType) else value
    if isinstance(value, type) and issubclass(value, BaseModel) and value.model_config.get("extra") != "allow":
        fields = value.model_fields.items()
        value = {name: field.annotation for name, field in fields if field.is_required() or not required}
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from leaves(below, f"{prefix}.{name}" if prefix else name, required=required)
    else:
        yield prefix


def pinned(requirements: Path) -> set[str]:
    """Return the import names of what a requirements file pins."""
    lines = requirements.read_text(encoding="utf-8").splitlines()
    names = {line.partition("==")[0].partition(".")[0] for line in lines if "==" in line}
    return {{"pillow": "PIL", "PyYAML": "yaml"}.get(name, name) for name in names}


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_depends_on_its_folder_and_on_the_shared_files_and_pins_that_it_uses(stage: str) -> None:
    used = needs("stages/__main__.py").union(*(needs(path.as_posix()) for path in Path("stages", stage).rglob("*.py")))
    modules = {room(path) for path in used if path.endswith(".py")}
    libraries = {path for path in used if not path.endswith(".py")} - {"pydantic_core"}  # a part of pydantic
    pins = {path for path in Path("stages").rglob("requirements*.txt") if pinned(path) & libraries}
    assert libraries <= set().union(*map(pinned, pins))
    declared = {dep for dep in STAGES[stage]["deps"] if dep.startswith("stages/")}
    assert declared == modules | {pin.as_posix() for pin in pins if pin.parent.name == "stages"}
    assert {pin.parent.name for pin in pins} <= {"stages", "columns", "runtime", stage}


def test_each_folder_is_a_stage_with_params_and_run() -> None:
    tracked = subprocess.run(["git", "ls-files", "stages"], check=True, capture_output=True, text=True).stdout.split()
    assert {Path(path).parts[1] for path in tracked if path.count("/") > 1} <= {*STAGES, *SHARED_ROOMS}
    assert {path.parent.name for path in Path("stages").glob("*/__init__.py")} >= {*STAGES, *SHARED_ROOMS}
    for stage in STAGES:
        module = importlib.import_module(f"stages.{stage}.stage")
        assert issubclass(module.Params, StageParams)
        assert inspect.get_annotations(module.run) == {"params": module.Params, "return": str}


def test_no_stage_imports_from_the_folder_of_another_and_no_shared_file_from_any() -> None:
    for path in map(Path.as_posix, Path("stages").rglob("*.py")):
        for used in map(room, imported(path)):
            if used.removeprefix("stages/") in STAGES:
                assert used == room(path), f"{path} imports from {used}"


def test_a_room_within_a_stage_is_entered_by_its_door_alone() -> None:
    for path in map(Path.as_posix, Path("stages").rglob("*.py")):
        for used in imported(path):
            inner = used.rpartition("/")[0]
            if inner.count("/") == 2 and not used.endswith("/__init__.py"):
                assert path.startswith(f"{inner}/"), f"{path} imports {used}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    paths = [path.as_posix() for path in Path("stages").rglob("*.py")]
    # A room and its door are one: whoever imports a file of it imports the door.
    arrows = {path: {used for used in imported(path) if used.endswith(".py") and used != door(path)} for path in paths}
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


def door(path: str) -> str:
    """Return the door of the room that a module is in."""
    return f"{path.rpartition('/')[0]}/__init__.py"


def test_a_file_beside_the_folders_is_used_by_several_of_them() -> None:
    used = [needs(f"stages/{stage}/stage.py") | needs("stages/__main__.py") for stage in STAGES]
    used.append(needs("stages/predict.py"))
    used.append(set().union(*(needs(path.as_posix()) for path in Path("tools").rglob("*.py"))))
    entries = {"stages/__init__.py", "stages/__main__.py", "stages/predict.py"}
    for path in {path.as_posix() for path in Path("stages").glob("*.py")} - entries:
        assert sum(path in each for each in used) > 1, path


def test_only_doors_hold_anything() -> None:
    for path in Path("stages").rglob("__init__.py"):
        is_door = len(path.parts) == 4 or path == Path("stages/columns/__init__.py")
        assert bool(path.read_bytes()) == is_door, path


ACROSS = {  # tests of more than a module or a room, by folder
    ".": "ci compare example experiments faults fork fuzz luck pipeline portable readme report sharing translations "
    "trouble tutorial",
    "evaluate": "classes",
    "generate": "classes",
    "plot": "charts",
    "train": "classes going_on",
}


def test_tests_mirror_stages() -> None:
    for folder in [".", *STAGES, *SHARED_ROOMS]:
        inside = Path("stages", folder).glob("*") if folder == "." else Path("stages", folder).rglob("*")
        tested = {path.stem.removeprefix("test_") for path in Path("tests", folder).glob("test_*.py")}
        assert tested <= {path.stem for path in inside} | set(ACROSS.get(folder, "").split()), folder


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_declares_exactly_the_params_it_reads(stage: str) -> None:
    schema = importlib.import_module(f"stages.{stage}.stage").Params
    declared = {name: PARAMS[name] for name in STAGES[stage]["params"]}
    assert set(leaves(schema, required=True)) == set(leaves(declared)) <= set(leaves(schema))


def test_the_sections_of_params_yaml_are_those_of_all_stages() -> None:
    schemas = [importlib.import_module(f"stages.{stage}.stage").Params for stage in STAGES]
    assert set().union(*(schema.model_fields for schema in schemas)) == SECTIONS == set(PARAMS)


def test_each_file_a_stage_reads_or_writes_is_declared() -> None:
    for stage, declared in STAGES.items():
        outs = [
            out if isinstance(out, str) else next(iter(out))
            for kind in ("outs", "metrics", "plots")
            for out in declared.get(kind, [])
        ]
        named = set(re.findall(r'"(data/[\w./]+)"', (PROJECT / f"stages/{stage}/stage.py").read_text(encoding="utf-8")))
        declared_files = {name for name in [*declared["deps"], *outs] if name.startswith("data/")}
        if stage == "generate":  # tables of the user's own, which params.yaml names
            declared_files.remove("data/raw")
        assert {name for name in named if not name.startswith("data/plots/")} == declared_files


def test_the_params_of_the_tests_have_the_keys_of_the_projects() -> None:
    ours, theirs = (
        {name: set(section) if isinstance(section, dict) else {} for name, section in params.items()}
        for params in (PARAMS, load_yaml(str(PROJECT / "params.yaml")))
    )
    assert ours == theirs


def test_the_params_schema_for_editors_is_current() -> None:
    assert (PROJECT / "params.schema.json").read_text(encoding="utf-8") == params_schema.text()
    assert "$schema=params.schema.json" in (PROJECT / "params.yaml").read_text(encoding="utf-8")


def test_make_schema_writes_the_schema(copy: Copy) -> None:
    written = copy.read("params.schema.json")
    (copy.path / "params.schema.json").unlink()
    copy.run("python", "-m", "tools.params_schema")
    assert copy.read("params.schema.json") == written


@same_bytes
def test_the_committed_results_are_those_of_a_run_from_nothing(trained: Copy) -> None:
    if load_yaml(str(PROJECT / "params.yaml")) != PARAMS:
        pytest.skip("params.yaml was edited: its results are not those of tests/params.yaml")
    assert trained.run("git", "diff", "--name-only", "HEAD~") == ""
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
    assert json.loads(copy.run("dvc", "status", "--json")).keys() == {"train", "evaluate"}

    copy.set(plot__dpi=100, train__learning_rate=0.2, generate__test_points=1000, network__hidden=10)
    assert copy.repro() == []  # all of it is restored from the run cache
    assert copy.read("dvc.lock") == lock


EDITS = {
    "stages/plot/pictures.py": ["plot"],
    "stages/evaluate/metrics.py": ["evaluate"],
    "stages/network.py": ["train", "evaluate"],
    "stages/plot/requirements.txt": ["plot"],
    "stages/requirements-torch.txt": ["generate", "train", "evaluate"],
    "stages/__main__.py": ["generate", "train", "plot", "evaluate"],
    "requirements.txt": [],
    "stages/plot/.pictures.py.swp": [],
    "stages/plot/#pictures.py#": [],
    "stages/plot/pictures.py~": [],
    "stages/plot/__pycache__/pictures.cpython-311.pyc": [],
    "stages/runtime/streams.py": ["generate", "train", "plot", "evaluate"],
    "stages/tables/table.py": ["generate"],
    "stages/columns/number.py": ["generate", "train", "plot", "evaluate"],
    "stages/train/compiled/loop.cpp": ["train"],
    "stages/residuals.py": ["evaluate"],
    "stages/history.py": ["train", "plot", "evaluate"],
}


def test_an_edit_reruns_exactly_the_stages_that_use_what_was_edited(done: Copy) -> None:
    for name, stages in EDITS.items():
        path = done.path / name
        former = path.read_bytes() if path.exists() else None
        path.parent.mkdir(exist_ok=True)
        path.write_bytes((former or b"") + b"# edited\n")
        assert sorted(json.loads(done.run("dvc", "status", "--json"))) == sorted(stages), name
        if name == list(EDITS)[-1]:  # what runs again gives the same bytes, so no other stage follows
            assert done.repro() == stages
        elif former is None:
            path.unlink()
        else:
            path.write_bytes(former)


def test_metrics_params_and_experiments_can_be_compared(done: Copy) -> None:
    done.set(train__learning_rate=0.01, train__epochs=100)
    done.rerun("train", "plot", "evaluate")
    done.run("dvc", "exp", "save", "--name", "slower")
    assert "test_mse" in done.run("dvc", "metrics", "diff", "HEAD")
    changed = done.run("dvc", "params", "diff", "HEAD")
    assert "train.learning_rate" in changed
    assert "0.01" in changed
    assert "slower" in done.run("dvc", "exp", "show", "--csv")
    shown = json.loads(done.run("dvc", "plots", "diff", "HEAD", "slower", "--json"))["data"]
    check_charts(shown, {"HEAD", "slower"})
    pictures = {name: images for name, images in shown.items() if name.startswith("data/plots/")}
    assert pictures.keys() == shown.keys() - CHARTS.keys()
    for name in ("data", "loss", "learning/0", "learning/100"):
        assert {image["revisions"][0] for image in pictures[f"data/plots/{name}.png"]} == {"HEAD", "slower"}


@pytest.mark.parametrize(("n_feature", "n_output"), [(3, 1), (1, 2)])
def test_charts_find_their_columns_whatever_the_widths(done: Copy, n_feature: int, n_output: int) -> None:
    for name in ("train", "test"):
        x = torch.rand(50, n_feature, generator=torch.Generator().manual_seed(1))
        dataset.write(str(done.path / f"data/{name}.pt"), Dataset(x, x[:, :1].repeat(1, n_output)))
    for stage in ("train", "plot", "evaluate"):
        done.stage(stage)
    check_charts(json.loads(done.run("dvc", "plots", "show", "--json"))["data"], {"workspace"})


# What the templates compute from the columns, and what those of classes name.
PREDICTIONS = {"horizontal", "truth", "prediction", "x_title", "rev", "true", "predicted", "rows", "share"}
ERRORS = {"truth", "difference", "x_title", "rev", "true"}
CHARTS = {
    "data/loss.csv": {"epoch", "loss", "rev"},
    "data/errors.csv": ERRORS,
    "data/predictions.csv": PREDICTIONS,
}


def check_charts(shown: dict[str, Any], revisions: set[str]) -> None:
    """Check that what DVC shows has our charts, and no other, with all columns that they name."""
    charts = {name: found[0] for name, found in shown.items() if found[0]["type"] == "vega"}
    assert charts.keys() == CHARTS.keys()
    for name, chart in charts.items():
        rows = chart["content"]["data"]["values"]
        named = set(re.findall(r'"field": "(\w+)"', json.dumps(chart["content"])))
        named -= {"validation_loss", "low", "high"}  # drawn where there are some
        assert named == CHARTS[name]
        assert all(row[column] != "" for row in rows for column in named - PREDICTIONS - ERRORS)
        assert {row["rev"] for row in rows} == revisions
        assert "<DVC_METRIC" not in json.dumps(chart["content"])  # all of the template is filled in
