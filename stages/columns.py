"""The names of a table's columns, which the dataset passes on to the model, the pictures and the metrics."""

from itertools import accumulate, pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Names = Annotated[list[str], Field(min_length=1)]


class Columns(BaseModel):
    """The names of the columns of x, (n, n_feature), and y, (n, n_output); files store them as JSON.

    A feature that is a category has a column of x for each of its values: 1 where the feature has that value, else 0.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    features: Names
    targets: Names
    categories: dict[str, Names] = {}  # the values, sorted, of each feature that is a category

    @model_validator(mode="after")
    def _check(self) -> "Columns":
        names = [*self.features, *self.targets]
        values = self.categories.values()
        if (
            len(set(names)) < len(names)
            or not self.categories.keys() <= set(self.features)
            or any(first >= second for each in values for first, second in pairwise(each))
        ):
            raise ValueError("must be different names; categories must be features with sorted, different values")
        return self

    def slices(self) -> dict[str, slice]:
        """Return the columns of x that each feature has."""
        widths = [len(self.categories[name]) if name in self.categories else 1 for name in self.features]
        edges = [0, *accumulate(widths)]
        return {name: slice(*both) for name, both in zip(self.features, pairwise(edges), strict=True)}

    def x_names(self) -> list[str]:
        """Return the name of each column of x, such as `age`, or `sex=female` for a value of a category."""
        return [
            column
            for name in self.features
            for column in ([f"{name}={value}" for value in self.categories.get(name, [])] or [name])
        ]


def unnamed(n_feature: int, n_output: int) -> Columns:
    """Return the names of columns that were given none: x or x_0, x_1, …, and y or y_0, y_1, …."""
    features, targets = (
        [letter] if width == 1 else [f"{letter}_{index}" for index in range(width)]
        for letter, width in (("x", n_feature), ("y", n_output))
    )
    return Columns(features=features, targets=targets)
