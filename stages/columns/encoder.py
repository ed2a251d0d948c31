"""The encoder of a table: which columns of x and y its cells become, and back."""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stages.columns.category import Category
from stages.columns.date import Date
from stages.columns.number import Number
from stages.columns.raw import Cells, Notation, Reading

if TYPE_CHECKING:
    import pyarrow as pa

Feature = Annotated[Number | Category | Date, Field(discriminator="kind")]
Target = Annotated[Number | Category, Field(discriminator="kind")]


class Columns(BaseModel):
    """The columns of a table, with what was learnt from its training rows alone; files store them as JSON.

    generate fits it, the dataset and the model carry it, predict applies it.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    features: Annotated[list[Feature], Field(min_length=1)]  # those of x, (n, n_feature)
    targets: Annotated[list[Target], Field(min_length=1)]  # those of y, (n, n_output): numbers, or a single category
    missing: list[str] = []  # cells that mean a missing value, besides those that always do

    @model_validator(mode="after")
    def _different_names(self) -> "Columns":
        names = [column.name for column in (*self.features, *self.targets)]
        if len(set(names)) < len(names):
            raise ValueError("columns must have different names")
        if len(self.targets) > 1 and any(isinstance(target, Category) for target in self.targets):
            raise ValueError("a category must be the only target")
        if self.classes and not len(set(self.classes)) == len(self.classes) == len(self.y_names()):
            raise ValueError("a category to predict must have different levels, and no more for rare or missing values")
        return self

    @property
    def feature_names(self) -> list[str]:
        """The names of the features, as in the header of the table."""
        return [feature.name for feature in self.features]

    @property
    def target_names(self) -> list[str]:
        """The names of the targets, as in the header of the table."""
        return [target.name for target in self.targets]

    @property
    def classes(self) -> list[str]:
        """The classes to predict, the columns of y, if the target is a category; none if it is an amount."""
        (target, *_) = self.targets
        return target.levels if isinstance(target, Category) else []

    def y_names(self) -> list[str]:
        """Return the name of each column of y, such as `age`, or `species=Adelie` for a class."""
        return [label for target in self.targets for label in target.labels()]

    def x_names(self) -> list[str]:
        """Return the name of each column of x, such as `age`, or `sex=female` for a level of a category."""
        return [label for feature in self.features for label in feature.labels()]

    def slices(self) -> dict[str, slice]:
        """Return the columns of x that each feature has, by name."""
        edges = [0, *accumulate(feature.width for feature in self.features)]
        return {name: slice(*both) for name, both in zip(self.feature_names, pairwise(edges), strict=True)}

    def read(self, table: "Mapping[str, pa.Array]", notation: Notation) -> dict[str, Reading]:
        """Return the readings of columns of a table, by name; cells of a type that is not `readable` are missing."""
        from stages.columns.cells import empty, readable

        columns = {column.name: column for column in (*self.features, *self.targets)}
        readings = {}
        for name, cells in table.items():
            reading = columns[name].read(cells if readable(cells.type) else empty(cells), notation)
            readings[name] = reading if readable(cells.type) else reading._replace(other=np.ones(len(cells), bool))
        return readings

    def encode(self, cells: Mapping[str, Cells]) -> np.ndarray:
        """Return x, float32 (n, n_feature), for n rows of the features, by name."""
        return np.concatenate([feature.encode(cells[feature.name]) for feature in self.features], axis=1)

    def encode_targets(self, cells: Mapping[str, Cells]) -> np.ndarray:
        """Return y, float32 (n, n_output), for n rows of the targets, by name; of classes, 1 in the column of each."""
        return np.concatenate([target.encode(cells[target.name]) for target in self.targets], axis=1)

    def decode(self, x: np.ndarray) -> dict[str, list[str]]:
        """Return the cells of each feature, by name, as text, for x, (n, n_feature)."""
        slices = self.slices()
        return {feature.name: feature.decode(x[:, slices[feature.name]]) for feature in self.features}


def unnamed(n_feature: int, n_output: int) -> Columns:
    """Return numbers called x or x_0, x_1, … and y or y_0, y_1, …, for columns without names."""
    return Columns(features=[*_numbers("x", n_feature)], targets=_numbers("y", n_output))


def _numbers(letter: str, width: int) -> list[Target]:
    return [Number(name=letter if width == 1 else f"{letter}_{index}") for index in range(width)]
