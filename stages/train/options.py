"""What train.optimizer_options may hold, whichever optimizer it is for."""

from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from stages.params import must_be

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,50}$"), must_be("a name of at most 50 letters, digits and _")]
Text = Annotated[str, Field(pattern=r"^[ -~]{0,50}$")]
Integer = Annotated[int, Field(ge=-(10**15), le=10**15)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
Value = bool | Integer | Number | Text | None
Option = Annotated[
    Value | list[Value], must_be("null, a boolean, a number within ±1e15, a short text, or a list of these")
]

# What LBFGS does in one step, and keeps of it: training can be stopped only between steps.
Count = Annotated[int, Field(gt=0, le=1000)]
COUNTS = "max_iter", "max_eval", "history_size"


class _Options:
    """Of a dict: those of its items that are in COUNTS must be a Count, the others an Option."""

    @staticmethod
    def __get_pydantic_core_schema__(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        count = core_schema.typed_dict_field(handler.generate_schema(Count), required=False)
        values = core_schema.typed_dict_schema(
            dict.fromkeys(COUNTS, count),
            extras_schema=handler.generate_schema(Option),
            extra_behavior="allow",
            config=core_schema.CoreConfig(strict=True, allow_inf_nan=False),
        )
        return core_schema.chain_schema([values, handler(source)])


OptimizerOptions = Annotated[dict[Name, Any], _Options]
