"""Take the training and test points from the user's own table."""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from stages.columns.names import normal_name
from stages.runtime.errors import UserError, short
from stages.runtime.params import Exact, Section, must_be


def refuse_linked_folders(path: str) -> None:
    """Raise UserError if a path leads through a link to a folder below data/raw: DVC does not follow such links."""
    places = [PurePosixPath(path), *PurePosixPath(path).parents]
    for place in (Path(place) for place in places if PurePosixPath("data/raw") in place.parents):
        if place.is_symlink() and place.is_dir():
            advice = "move the folder itself there, or link its files"
            raise UserError(f"{place.as_posix()}: is a link to a folder, in which DVC notices no changes: {advice}")


def _below_raw(path: str) -> str:
    folders = PurePosixPath(path).parts[:-1]
    if folders[:2] != ("data", "raw") or ".." in re.split(r"[/\\]", path):
        raise ValueError("must be in data/raw/, where DVC notices changes, e.g. data/raw/houses.csv")
    return path


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, UnicodeError) as error:
        raise ValueError("must be known to Python") from error
    return name


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("must be different names")
    return names


def _listed(target: str | list[str]) -> list[str]:
    return [target] if isinstance(target, str) else target


TablePath = Annotated[str, AfterValidator(_below_raw)]
Name = Annotated[str, AfterValidator(normal_name), StringConstraints(min_length=1)]
Names = Annotated[list[Name], AfterValidator(_different)]
Encoding = Annotated[str, AfterValidator(_known_encoding)]
SomeNames = Annotated[Names, Field(min_length=1)]


class OwnTable(Section):
    """The section `generate` of params.yaml, for a table of the user's own."""

    source: Literal["table"]
    path: TablePath
    target: Annotated[Name | SomeNames, must_be("the name of a column, or a list of different names, as text")]
    features: Annotated[SomeNames | None, must_be("null, or a list of different names, as text")]
    categories: Annotated[Names | None, must_be("null, or a list of different names, as text")] = None
    missing: Annotated[list[str | int | float], must_be("a list of texts and numbers")] = Field(default_factory=list)
    day_first: Annotated[bool | None, must_be("true, false or null")] = None
    encoding: Annotated[Encoding | None, must_be("null, or the name of a text encoding, such as cp1252")] = None
    test_fraction: Annotated[float, Field(gt=0, lt=1), Exact] | None = None
    test_path: Annotated[TablePath | None, Field(validate_default=True)] = None
    test_latest: Annotated[bool, must_be("true or false")] = False
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, validate_default=True)

    @property
    def targets(self) -> list[str]:
        """The names of the targets, as a list even if there is only one."""
        return _listed(self.target)

    @property
    def missing_texts(self) -> list[str]:
        """The cells that mean a missing value, besides those that always do, as text."""
        return [str(cell) for cell in self.missing]

    @field_validator("features")
    @classmethod
    def _no_target(cls, names: list[str] | None, info: ValidationInfo) -> list[str] | None:
        targets = _listed(info.data.get("target", []))
        if both := [name for name in names or [] if name in targets]:
            raise ValueError(f"must not name the target {short(both[0])}")
        return names

    @field_validator("categories")
    @classmethod
    def _among_columns(cls, categories: list[str] | None, info: ValidationInfo) -> list[str] | None:
        features, targets = info.data.get("features"), _listed(info.data.get("target", []))
        named = categories or []
        if len(targets) > 1 and (both := [name for name in named if name in targets]):
            raise ValueError(f"must not name {short(both[0])}, one of several targets: a category must be the only one")
        if features and (others := [name for name in named if name not in [*features, *targets]]):
            raise ValueError(f"must name only the target and columns in generate.features, not {short(others[0])}")
        return categories

    @field_validator("test_path")
    @classmethod
    def _instead_of_a_fraction(cls, path: str | None, info: ValidationInfo) -> str | None:
        if "test_fraction" in info.data:
            has_fraction = info.data["test_fraction"] is not None
            if path is None and not has_fraction:
                raise ValueError("must be given if generate.test_fraction is not")
            if path is not None and has_fraction:
                raise ValueError("must not be given with generate.test_fraction")
        return path

    @field_validator("test_latest")
    @classmethod
    def _with_a_fraction(cls, latest: bool, info: ValidationInfo) -> bool:
        if latest and info.data.get("test_path") is not None:
            raise ValueError("must be false with generate.test_path")
        return latest

    @field_validator("seed")
    @classmethod
    def _for_a_draw(cls, seed: int | None, info: ValidationInfo) -> int | None:
        drawn = info.data.get("test_fraction") is not None and not info.data.get("test_latest")
        if seed is None and drawn:
            raise ValueError("must be given with generate.test_fraction")
        return seed
