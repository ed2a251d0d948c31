"""Read params.yaml, as DVC reads it, into the schema of a stage; report all its faults at once."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from stages.runtime import files
from stages.runtime.errors import UserError, one_line, printable, short

MAX_CHARACTERS = 50_000  # in a file; the parser takes about a second for this many
MAX_LEVELS = 10  # of nested collections
SECTIONS = {"kernels", "generate", "network", "train", "plot"}  # of params.yaml, those of all stages

PointCount = Annotated[int, Field(gt=0, le=10**12)]  # × 4 bytes × the most neurons is below 2^63 bytes


def _exact(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 53 and value & -value < 1 << (value.bit_length() - 53):
        raise ValueError("must be a number that a float can represent exactly")
    return value


Exact = BeforeValidator(_exact)  # for a float: an integer is accepted, but never rounded


def must_be(rule: str) -> WrapValidator:
    """Return what makes a field report any fault as `must be {rule}`, for types that pydantic describes poorly."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValueError(f"must be {rule}") from error

    return WrapValidator(validate)


class Section(BaseModel):
    """A section of params.yaml: exact types, finite numbers, no unknown keys, few defaults."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


def _kernels_of_old(value: Any) -> Any:
    if value == "compiled":
        raise ValueError("must be 'portable' or 'native' (for compiled steps, set train.steps to compiled)")
    return value


class StageParams(Section):
    """What every stage reads; each stage adds its own sections."""

    kernels: Annotated[Literal["portable", "native"], BeforeValidator(_kernels_of_old)]

    def __init_subclass__(cls, **options: Any) -> None:
        if cls.__module__ == "__main__":  # python -m stages.train.stage, which would otherwise do nothing, silently
            raise SystemExit("run a stage by its name: python -m stages train")


Schema = TypeVar("Schema", bound=StageParams)


def load(path: str) -> dict[str, Any]:
    """Return the mapping in a YAML file, read by the parser that DVC uses, so that both see the same values.

    Raises UserError if the file cannot be read, is too large or is not a YAML mapping.
    """
    try:
        files.regular(path)
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
        _check_size(path, text)
        document = YAML(typ="safe").load(text)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # whatever the parser trips over, DVC could not read it either
        raise UserError(f"{path}: is not valid YAML in UTF-8: {printable(_account(error))}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: must be a mapping of sections, got {short(document)}")
    return document


def _account(error: Exception) -> str:
    """Return the parser's message without its excerpts and its advice to programmers."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {', '.join(filter(None, [error.context, error.problem]))}"
    return one_line(error).partition(";")[0]


def _check_size(path: str, text: str) -> None:
    """Raise UserError if the text would take long to load: a few aliases can stand for billions of values.

    Besides, DVC does not preserve aliases: `dvc exp run -S` may change an aliased value in one place or in all.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{path}: must have at most {MAX_CHARACTERS} characters")
    level = 0
    for event in YAML(typ="safe").parse(text):
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            alias = f"*{printable(event.anchor)}"
            raise UserError(f"{path}: line {line}: aliases are not allowed: write out the value, got {alias}")
        level += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if level > MAX_LEVELS:
            raise UserError(f"{path}: line {line}: must have at most {MAX_LEVELS} levels of nesting")


def check(path: str, document: dict[str, Any], schema: type[Schema]) -> Schema:
    """Return the sections of the document that the schema asks for.

    Raises UserError with every fault in them, and every section that no stage knows, one per line:
    `params.yaml: train.epochs: must be greater than 0, got -3`.
    """
    others = SECTIONS - schema.model_fields.keys()  # which other stages check
    try:
        return schema.model_validate({name: value for name, value in document.items() if name not in others})
    except ValidationError as error:
        tagged = {name for name, field in schema.model_fields.items() if field.discriminator}
        faults = [f"{path}: {_describe(fault, tagged)}" for fault in error.errors(include_url=False)]
        raise UserError("\n".join(faults)) from error


def _describe(fault: ErrorDetails, tagged: set[str]) -> str:
    """Return a fault that pydantic found, in this project's words.

    A tagged section is one of several kinds, which one of its keys, the discriminator, tells apart.
    """
    place, value, context = [*fault["loc"]], fault["input"], fault.get("ctx", {})
    if fault["type"].startswith("union_tag"):
        place.append(context["discriminator"].strip("'"))
        value = value.get(place[-1])
    elif place[0] in tagged:
        del place[1:2]  # the kind, which is no part of the file
    rules = {
        "missing": "is missing",
        "union_tag_not_found": "is missing",
        "union_tag_invalid": f"must be {' or '.join(context.get('expected_tags', '').rsplit(', ', 1))}",
        "extra_forbidden": "is not a known key",
        "invalid_key": "is not a known key",
        "model_type": "must be a mapping",
        "model_attributes_type": "must be a mapping",
        "dict_type": "must be a mapping",
    }
    rule = rules.get(fault["type"]) or re.sub(r"^(\w+ should|Value error, must)", "must", fault["msg"])
    where = ".".join(map(printable, place))
    return f"{where}: {rule}" if rule == "is missing" else f"{where}: {rule}, got {short(value)}"
