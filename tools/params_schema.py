"""Write params.schema.json, with which editors complete and check params.yaml: `python -m tools.params_schema`."""

import importlib
import json
from pathlib import Path
from typing import Any

from pydantic import create_model

from stages.runtime.params import StageParams
from stages.runtime.run import SOURCES


def stage_schemas() -> list[type[StageParams]]:
    """Return the schema of what each stage reads from params.yaml."""
    names = sorted(path.parent.name for path in SOURCES.glob("*/stage.py"))
    return [importlib.import_module(f"stages.{name}.stage").Params for name in names]


def text() -> str:
    """Return the JSON schema of everything that the stages read from params.yaml."""
    sections: dict[str, Any] = {
        name: (field.annotation, ...) for schema in stage_schemas() for name, field in schema.model_fields.items()
    }
    schema = create_model(
        "params.yaml", __base__=StageParams, __module__="tools.params_schema", **sections
    ).model_json_schema()
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    Path("params.schema.json").write_text(text(), encoding="utf-8", newline="\n")
