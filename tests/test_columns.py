from typing import Any

import pytest
from pydantic import ValidationError

from stages.columns import Columns, unnamed

COLUMNS = Columns(
    features=["age", "sex", "size"], targets=["price", "rent"], categories={"sex": ["female", "male"], "size": ["L"]}
)


def test_a_category_has_a_column_of_x_for_each_of_its_values() -> None:
    assert COLUMNS.x_names() == ["age", "sex=female", "sex=male", "size=L"]
    assert COLUMNS.slices() == {"age": slice(0, 1), "sex": slice(1, 3), "size": slice(3, 4)}


def test_columns_are_the_same_after_they_were_text() -> None:
    assert Columns.model_validate_json(COLUMNS.model_dump_json()) == COLUMNS


@pytest.mark.parametrize(
    "change",
    [
        {"features": []},
        {"targets": []},
        {"features": ["age", "age"], "categories": {}},
        {"targets": ["age"]},
        {"categories": {"colour": ["red"]}},
        {"categories": {"sex": []}},
        {"categories": {"sex": ["male", "female"]}},
        {"categories": {"sex": ["male", "male"]}},
        {"other": 1},
    ],
)
def test_columns_that_contradict_each_other_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Columns(**COLUMNS.model_dump() | change)


@pytest.mark.parametrize(
    ("widths", "features", "targets"),
    [((1, 1), ["x"], ["y"]), ((3, 1), ["x_0", "x_1", "x_2"], ["y"]), ((1, 2), ["x"], ["y_0", "y_1"])],
)
def test_columns_without_names_are_called_by_letters(
    widths: tuple[int, int], features: list[str], targets: list[str]
) -> None:
    assert unnamed(*widths) == Columns(features=features, targets=targets)
