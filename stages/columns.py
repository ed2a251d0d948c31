"""The names of a table's columns, as they travel from the dataset to the model, the pictures and the metrics."""

from itertools import accumulate, pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Names = Annotated[list[str], Field(min_length=1)]


class Columns(BaseModel):
    """What the columns of x, (n, n_feature), and y, (n, n_output), are called; as text in JSON where they are stored.

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
            raise ValueError("must be different names, and categories with sorted values")
        return self

    def slices(self) -> dict[str, slice]:
        """Return which columns of x each feature has."""
        ends = [0, *accumulate(len(self.categories.get(name, "1")) for name in self.features)]
        return {name: slice(*edges) for name, edges in zip(self.features, pairwise(ends), strict=True)}

    def x_names(self) -> list[str]:
        """Return the name of each column of x, such as `age`, or `sex=female` for a value of a category."""
        return [
            column
            for name in self.features
            for column in ([f"{name}={value}" for value in self.categories.get(name, [])] or [name])
        ]


def unnamed(n_feature: int, n_output: int) -> Columns:
    """Return what the columns are called where nobody has named them: x and y, or x_0, x_1, … and y_0, y_1, …."""
    features, targets = (
        [letter] if width == 1 else [f"{letter}_{index}" for index in range(width)]
        for letter, width in (("x", n_feature), ("y", n_output))
    )
    return Columns(features=features, targets=targets)
