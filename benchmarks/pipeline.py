"""`dvc repro` beside its floor: the same DAG, of stages that import what they need and write placeholders."""

import json
from collections.abc import Iterator
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from benchmarks.process import PROJECT
from benchmarks.project import Copy
from benchmarks.report import Quantities, Section, duration, interleaved, table

COMMON = ["filelock", "pydantic", "yaml", "tqdm"]
TORCH = ["torch", *COMMON]
IMPORTS = {
    "generate": TORCH,
    "train": TORCH,
    "plot": ["matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image", "numpy", *COMMON],
    "evaluate": TORCH,
}
PICTURES = 24  # in data/plots
STEPS: dict[str, dict[str, Any]] = {
    "from nothing": {},
    "nothing changed": {},
    "another plot.dpi": {"plot.dpi": 80},
    "another train.learning_rate": {"train.learning_rate": 0.1},
    "back to the first values": {"plot.dpi": 100, "train.learning_rate": 0.2},
}
TEXT = f"""\
The default params, step after step in a fresh copy of the project without outputs and cache. The floor is the same
dvc.yaml, deps, params and outs, of stages that import what they need and write placeholders,
{PICTURES} of them pictures.
"""


def outs(stage: dict[str, Any]) -> Iterator[str]:
    """Yield the files that a stage of dvc.yaml writes."""
    for out in [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]:
        path = next(iter(out)) if isinstance(out, dict) else out
        yield from [f"{path}/{index}.png" for index in range(PICTURES)] if path == "data/plots" else [path]


def lay_floor(copy: Copy) -> None:
    """Put the floor in the place of the stages."""
    stages = yaml.safe_load((copy.folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    jobs = {name: [IMPORTS[name], list(outs(stage))] for name, stage in stages.items()}
    (copy.folder / "floor.json").write_text(json.dumps(jobs), encoding="utf-8")
    (copy.folder / "stages/__main__.py").write_bytes((PROJECT / "benchmarks/floor.py").read_bytes())


def measure(steps: dict[str, dict[str, Any]], floor: bool) -> Quantities:
    """Return how long `dvc repro` takes at each step, and how many stages it runs."""
    results = {}
    with TemporaryDirectory() as folder:
        copy = Copy(folder)
        if floor:
            lay_floor(copy)
        for step, changes in steps.items():
            copy.set(changes)
            output, results[step] = copy.run("dvc", "repro")
            results[f"{step}: stages"] = output.count("Running stage")
    return results


def run(quick: bool) -> Section:
    """Measure and report."""
    steps = dict(list(STEPS.items())[: 2 if quick else None])
    calls = {name: partial(measure, steps, name == "floor") for name in ("ours", "floor")}
    ours, floor = interleaved("pipeline", 1 if quick else 3, calls).values()
    rows, said = [], []
    for step in steps:
        assert ours[f"{step}: stages"] == floor[f"{step}: stages"]
        ratio = f"{ours[step] / floor[step]:.2f}"
        rows.append([step, f"{ours[f'{step}: stages']:.0f}", duration(ours[step]), duration(floor[step]), ratio])
        said.append(f"{step} {duration(ours[step])} (× {ratio} its floor)")
    head = ["`dvc repro`", "stages run", "ours", "floor", "ours / floor"]
    return Section("Pipeline", [f"`dvc repro`: {', '.join(said)}."], f"{TEXT}\n{table(head, rows)}")
