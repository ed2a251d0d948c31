"""Options of an optimizer or a schedule in params.yaml, under the names that torch gives them."""

from typing import Annotated

from pydantic import Field

from stages.runtime.params import Section, must_be

OptionName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_]{1,50}$"), must_be("a name of at most 50 letters, digits and _")
]
Scalar = (
    bool
    | Annotated[int, Field(ge=-(10**15), le=10**15)]
    | Annotated[float, Field(ge=-1e15, le=1e15)]
    | Annotated[str, Field(pattern=r"^[ -~]{0,50}$")]
    | None
)
Option = Annotated[
    Scalar | list[Scalar], must_be("null, a boolean, a number within ±1e15, a short text, or a list of these")
]


class Options(Section, extra="allow"):
    """Options under the names that torch gives them; torch checks whether they exist."""

    __pydantic_extra__: dict[OptionName, Option]

    def given(self) -> dict[str, Option]:
        """Return the options that are given in params.yaml."""
        return self.model_dump(exclude_unset=True)
