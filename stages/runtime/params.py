"""Read params.yaml, as DVC reads it, into the schema of a stage; report all its faults at once."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

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
from yaml import MarkedYAMLError

from stages.runtime import files, yaml12
from stages.runtime.errors import UserError, did_you_mean, one_line, one_of, printable, short

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


def _refuse_former_value(value: Any) -> Any:
    if value == "compiled":
        raise ValueError("must be 'portable' or 'native' (for compiled steps, set train.steps to compiled)")
    return value


class StageParams(Section):
    """What every stage reads; each stage adds its own sections."""

    kernels: Annotated[Literal["portable", "native"], BeforeValidator(_refuse_former_value)]

    def __init_subclass__(cls, **options: Any) -> None:
        if cls.__module__ == "__main__":  # python -m stages.train.stage, which would otherwise do nothing, silently
            raise SystemExit("run a stage by its name: python -m stages train")


Schema = TypeVar("Schema", bound=StageParams)


def load(path: str) -> dict[str, Any]:
    """Return the mapping in a YAML file, in which DVC reads the same values.

    Raises UserError if the file cannot be read, is not a YAML mapping, or contains what other parsers read differently.
    """
    try:
        files.regular(path)
        document = yaml12.load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # parsers raise all kinds of errors
        raise UserError(f"{path}: {printable(_parser_message(error))}") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: must be a mapping of sections, got {short(document)}")
    return document


def _parser_message(error: Exception) -> str:
    """Return the parser's message without its excerpts of the file."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {', '.join(filter(None, [error.context, error.problem]))}"
    return f"is not valid YAML in UTF-8: {one_line(error).partition(';')[0]}"


def check(path: str, document: dict[str, Any], schema: type[Schema]) -> Schema:
    """Return the sections of the document that the schema asks for.

    Raises UserError with every fault in them, and every section that no stage knows, one per line:
    `params.yaml: train.epochs: must be greater than 0, got -3`.
    """
    others = SECTIONS - schema.model_fields.keys()  # which other stages check
    try:
        return schema.model_validate({name: value for name, value in document.items() if name not in others})
    except ValidationError as error:
        faults = [f"{path}: {_describe(fault, schema)}" for fault in error.errors(include_url=False)]
        raise UserError("\n".join(faults)) from error


def _describe(fault: ErrorDetails, schema: type[Schema]) -> str:
    """Return a fault that pydantic found, in this project's words.

    A tagged section is one of several kinds, which one of its keys, the discriminator, tells apart.
    """
    place, value, context = [*fault["loc"]], fault["input"], fault.get("ctx", {})
    tagged = place[0] in schema.model_fields and schema.model_fields[str(place[0])].discriminator
    if fault["type"].startswith("union_tag"):
        place.append(context["discriminator"].strip("'"))
        value = value.get(place[-1])
    elif tagged:
        del place[1:2]  # the kind, which is no part of the file
    names: Iterable[str] = re.findall("'([^']*)'", context.get("expected", context.get("expected_tags", "")))
    rules = {
        "missing": "is missing",
        "union_tag_not_found": "is missing",
        "union_tag_invalid": "must be",
        "literal_error": "must be",
        "extra_forbidden": "is not a known key",
        "invalid_key": "is not a known key",
        "model_type": "must be a mapping",
        "model_attributes_type": "must be a mapping",
        "dict_type": "must be a mapping",
    }
    rule = rules.get(fault["type"]) or re.sub(r"^(\w+ should|Value error, must)", "must", fault["msg"])
    where = ".".join(map(printable, place))
    if rule == "is missing":
        return f"{where}: {rule}"
    if rule == "must be":
        return f"{where}: {rule} {one_of(names)}, got {short(value)}{did_you_mean(value, names)}"
    if rule == "is not a known key":
        return f"{where}: {rule}, got {short(value)}{did_you_mean(place[-1], _keys(schema, place[:-1]))}"
    return f"{where}: {rule}, got {short(value)}"


def _keys(schema: type[BaseModel], place: list[int | str]) -> set[str]:
    """Return the keys that a section can have, of whichever kind; at the top, the sections."""
    models = [schema]
    for part in place:
        types = [model.model_fields[str(part)].annotation for model in models if part in model.model_fields]
        kinds = [kind for annotation in types for kind in get_args(annotation) or [annotation]]
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return {name for model in models for name in model.model_fields} if place else SECTIONS
