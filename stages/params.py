"""Read params.yaml, as DVC reads it, into the schema of a stage; tell all its faults at once."""

import pkgutil
import re
import reprlib
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML

import stages
from stages.errors import UserError


def _exact(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 53 and value & -value < 1 << (value.bit_length() - 53):
        raise ValueError("must be a number that a float holds exactly")
    return value


Exact = BeforeValidator(_exact)  # of a float: an integer is taken for one, but never for another number


class Section(BaseModel):
    """A section of params.yaml: exact types, finite numbers, no unknown keys, no defaults."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class StageParams(Section):
    """What every stage reads; each stage adds its own sections."""

    kernels: Literal["portable", "native"]


Schema = TypeVar("Schema", bound=StageParams)


def load(path: str) -> dict[str, Any]:
    """Return the mapping in a YAML file, by the parser that DVC uses, so that both see the same values."""
    try:
        document = YAML(typ="safe").load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever the parser trips over, it is not a file that DVC could read either
        raise UserError(f"{path}: not YAML in UTF-8: {_one_line(error)}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: must be a mapping of sections, got {_short(document)}")
    return document


def check(path: str, document: dict[str, Any], schema: type[Schema]) -> Schema:
    """Return the sections of the document that the schema asks for.

    Raises UserError with every fault in them, and every section that no stage knows, one per line:
    `params.yaml: train.epochs: must be greater than 0, got -3`.
    """
    # A section is named after the module of stages/ that it is for: those of other modules are theirs to check.
    others = {module.name for module in pkgutil.iter_modules(stages.__path__)} - schema.model_fields.keys()
    try:
        return schema.model_validate({name: value for name, value in document.items() if name not in others})
    except ValidationError as error:
        faults = [f"{path}: {_describe(fault)}" for fault in error.errors(include_url=False)]
        raise UserError("\n".join(faults)) from error


def _describe(fault: ErrorDetails) -> str:
    """Return pydantic's account of a fault in this project's words."""
    where = _one_line(".".join(map(str, fault["loc"])))
    rules = {
        "missing": "is missing",
        "extra_forbidden": "is not a known key",
        "model_type": "must be a mapping",
        "dict_type": "must be a mapping",
    }
    rule = rules.get(fault["type"]) or re.sub(r"^(\w+ should|Value error, must)", "must", fault["msg"])
    return f"{where}: {rule}" if fault["type"] == "missing" else f"{where}: {rule}, got {_short(fault['input'])}"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _short(value: object) -> str:
    shortener = reprlib.Repr()
    shortener.maxlevel = 2
    return _one_line(shortener.repr(value))
