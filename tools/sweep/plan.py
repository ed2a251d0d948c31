"""What a sweep runs: the params of each run, and a name that says whether a finished run still counts."""

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import InvalidArgumentError
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides

from stages.runtime import params
from stages.runtime.errors import UserError
from tools.params_schema import stage_schemas


@dataclass(frozen=True)
class Run:
    """One run of the pipeline: a value of the swept param, and a seed if there are several."""

    value: str  # as the table and the picture show it
    number: float | None  # the value, if it is one
    seed: int | None
    label: str  # for messages
    text: str  # of its params.yaml
    name: str  # of its experiment


def plan(project: Path, key: str, values: Sequence[str], seed_key: str, seeds: Sequence[int]) -> list[Run]:
    """Return the runs of the pipeline in a folder, seed by seed, so that a sweep cut off has something of each value.

    Raises UserError with every fault that the stages would find in the params of any run.
    """
    depends = fingerprint(project)
    each: list[int | None] = [*seeds] or [None]
    runs: dict[str, Run] = {}
    faults: dict[str, None] = {}
    for seed in each:
        for value in values:
            overrides = [f"++{key}={value}"] + [f"++{seed_key}={seed}"] * (seed is not None)
            text, document = _changed(project / "params.yaml", overrides)
            faults |= dict.fromkeys(_faults(document))
            found = _look_up(document, key)
            name = _name(key, found, seed, json.dumps([document, depends], sort_keys=True))
            number = float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None
            label = f"{key} {shown(found)}" + f", seed {seed}" * (seed is not None)
            runs[name] = Run(shown(found), number, seed, label, text, name)
    if faults:
        raise UserError("\n".join(faults))
    return list(runs.values())


def fingerprint(project: Path) -> str:
    """Return, as JSON, what the pipeline in a folder depends on, besides params, as DVC sees it.

    That is all commands, and the hashes of all deps that no stage writes: what makes a stage run again.
    Raises UserError if one of them is missing.
    """
    with Repo(str(project)) as repo:
        written = {out.fs_path for out in repo.index.outs}
        hashes = {}
        for dep in repo.index.deps:
            if dep.fs_path in written or isinstance(dep, ParamsDependency):
                continue
            if not dep.exists:
                raise UserError(f"{dep.def_path}: is missing, but dvc.yaml names it in deps")
            hashes[dep.def_path] = dep.get_hash().value
        commands = [stage.cmd for stage in repo.index.stages]
        return json.dumps([hashes, commands], sort_keys=True, default=str)


def shown(value: Any) -> str:
    """Return a value of params.yaml as it could stand there, in one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _changed(base: Path, overrides: list[str]) -> tuple[str, dict[str, Any]]:
    """Return a params.yaml changed as `dvc exp run -S` would change it: its text and its content."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "params.yaml")
        path.write_bytes(base.read_bytes())
        try:
            apply_overrides(path, overrides)
        except InvalidArgumentError as error:
            hint = "separate several values by spaces, and quote text that has other signs"
            raise UserError(f"{overrides[0][2:]}: is not a value that `dvc exp run -S` accepts: {hint}") from error
        return path.read_text(encoding="utf-8"), params.load(str(path))


def _faults(document: dict[str, Any]) -> list[str]:
    faults = []
    for schema in stage_schemas():
        try:
            params.check("params.yaml", document, schema)
        except UserError as error:
            faults += str(error).splitlines()
    return faults


def _look_up(document: Any, key: str) -> Any:
    for step in key.split("."):
        document = document.get(step) if isinstance(document, dict) else None
    return document


def _name(key: str, value: Any, seed: int | None, content: str) -> str:
    """Return the name of the experiment; it ends in a digest of all that determines the results."""
    parts = [key.rpartition(".")[2], shown(value)] + ["seed", str(seed)] * (seed is not None)
    readable = re.sub(r"[^\w]*[^\w.+-][^\w]*|\.\.+", "-", "-".join(parts), flags=re.ASCII)[:60].strip(".-")
    return f"{readable}-{hashlib.blake2b(content.encode(), digest_size=4).hexdigest()}"
