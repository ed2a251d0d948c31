"""A copy of the project, to run stages and DVC in."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks import process
from benchmarks.process import NATIVE, PROJECT
from stages.runtime import params


class Run(NamedTuple):
    """A command that has run."""

    output: str
    seconds: float


class Copy:
    """The project as it stands in the working tree, without outputs and without DVC's cache."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in filter(None, process.run(listing, str(PROJECT), NATIVE).split("\0")):
            if (PROJECT / name).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes((PROJECT / name).read_bytes())
        self.run("git", "init", "-q")

    def run(self, *command: str, **environment: str) -> Run:
        """Run a command in the copy."""
        start = time.perf_counter()
        output = process.run(list(command), str(self.folder), NATIVE | {"PYTHONPATH": ""} | environment)
        return Run(output, time.perf_counter() - start)

    def set(self, changes: dict[str, Any]) -> None:
        """Change params: `set({"train.epochs": 3})`."""
        path = self.folder / "params.yaml"
        document = params.load(str(path))
        for name, value in changes.items():
            *sections, key = name.split(".")
            (document[sections[0]] if sections else document)[key] = value
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
