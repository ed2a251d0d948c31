"""Take the training and test points from the user's own table."""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from stages.columns import Columns
from stages.dataset import Dataset
from stages.generate import split
from stages.runtime.errors import UserError, short
from stages.runtime.params import Exact, Section, must_be
from stages.tables.names import normal_name


def refuse_linked_folders(path: str) -> None:
    """Raise UserError if a path leads through a link to a folder below data/raw: DVC does not follow such links."""
    places = [PurePosixPath(path), *PurePosixPath(path).parents]
    for place in (Path(place) for place in places if PurePosixPath("data/raw") in place.parents):
        if place.is_symlink() and place.is_dir():
            advice = "move the folder itself there, or link its files"
            raise UserError(f"{place.as_posix()}: is a link to a folder, where DVC notices no changes: {advice}")


def _below_raw(path: str) -> str:
    folders = PurePosixPath(path).parts[:-1]
    if folders[:2] != ("data", "raw") or ".." in re.split(r"[/\\]", path):
        raise ValueError("must be in data/raw/, where DVC notices changes, e.g. data/raw/houses.csv")
    return path


def _different(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("must be different names")
    return names


def _listed(target: str | list[str]) -> list[str]:
    return [target] if isinstance(target, str) else target


TablePath = Annotated[str, AfterValidator(_below_raw)]
Name = Annotated[str, AfterValidator(normal_name), StringConstraints(min_length=1)]
Names = Annotated[list[Name], AfterValidator(_different)]
SomeNames = Annotated[Names, Field(min_length=1)]


class OwnTable(Section):
    """The section `generate` of params.yaml, for a table of the user's own."""

    source: Literal["table"]
    path: TablePath
    target: Annotated[Name | SomeNames, must_be("the name of a column, or a list of different names, as text")]
    features: Annotated[SomeNames | None, must_be("null, or a list of different names, as text")]
    categories: Annotated[Names, must_be("a list of different names, as text")] = Field(default_factory=list)
    test_fraction: Annotated[float, Field(gt=0, lt=1), Exact] | None = None
    test_path: Annotated[TablePath | None, Field(validate_default=True)] = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, validate_default=True)

    @property
    def targets(self) -> list[str]:
        """The names of the targets, as a list even if there is only one."""
        return _listed(self.target)

    @field_validator("features", "categories")
    @classmethod
    def _no_target(cls, names: list[str] | None, info: ValidationInfo) -> list[str] | None:
        targets = _listed(info.data.get("target", []))
        if both := [name for name in names or [] if name in targets]:
            raise ValueError(f"must not name the target {short(both[0])}")
        return names

    @field_validator("categories")
    @classmethod
    def _among_features(cls, categories: list[str], info: ValidationInfo) -> list[str]:
        features = info.data.get("features")
        if features and (others := [name for name in categories if name not in features]):
            raise ValueError(f"must name only columns in generate.features, not {short(others[0])}")
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

    @field_validator("seed")
    @classmethod
    def _for_a_fraction(cls, seed: int | None, info: ValidationInfo) -> int | None:
        if seed is None and info.data.get("test_fraction") is not None:
            raise ValueError("must be given with generate.test_fraction")
        return seed


def points_of_table(settings: OwnTable, advance: Callable[[int], None]) -> tuple[Dataset, Dataset]:
    """Return the points to train on and those to test on; call `advance` with how many more rows have been read.

    Raises UserError with all faults of a table.
    """
    from stages.tables.table import Table  # late: pyarrow takes a moment to import, which the curve does not need

    for path in filter(None, (settings.path, settings.test_path)):
        refuse_linked_folders(path)
    table, targets = Table(settings.path, advance), settings.targets
    features = settings.features or [name for name in table.names if name not in targets]
    table.require([*features, *targets, *settings.categories])
    if not features:
        raise UserError(f"{settings.path}: has no columns other than the target")
    columns = Columns(features=features, targets=targets, categories=table.values(settings.categories))
    pieces = list(split.in_pieces(table.rows(columns, check_rounding=True)))
    n = sum(map(len, pieces))
    if settings.test_path is not None:
        test_table = Table(settings.test_path, advance)
        if test_table.digests() <= table.digests():
            what = f"generate.test_path must be another table than generate.path, {settings.path}"
            raise UserError(f"{settings.test_path}: {what}: both hold the same rows")
        pieces += split.in_pieces(test_table.rows(columns))
        return split.train_and_test(pieces, np.arange(sum(map(len, pieces))) >= n, columns)
    assert settings.test_fraction and settings.seed is not None  # as the schema demands
    is_test = split.choose_test_rows(settings.path, n, settings.test_fraction, settings.seed)
    train, test = split.train_and_test(pieces, is_test, columns)
    split.refuse_untrained_values(settings.path, train, test, is_test)
    return train, test
