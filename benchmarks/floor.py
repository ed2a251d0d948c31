"""What stands for stages/__main__.py where the floor of the pipeline is measured."""

import json
import sys
from importlib import import_module
from pathlib import Path


def run(stage: str) -> None:
    """Import what the stage needs and write its outs, placeholders that change when params.yaml does."""
    imports, outs = json.loads(Path("floor.json").read_text(encoding="utf-8"))[stage]
    for name in imports:
        import_module(name)
    for path in map(Path, outs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Path("params.yaml").read_bytes())


if __name__ == "__main__":
    run(sys.argv[1])
