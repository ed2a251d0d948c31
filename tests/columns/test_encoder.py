import numpy as np
import pytest

from stages.columns import Category, Cells, Columns, Date, Number, Texts, unnamed

AGE = Number.fit("age", np.array([1, 2, np.nan, 4], np.float32))
SEX = Category(name="sex", levels=["f", "m"])
SOLD = Date.fit("sold", np.array([10.0, 14.0]), "year-month-day")
COLUMNS = Columns(features=[SEX, AGE, SOLD], targets=[Number(name="price")])
CLASSES = Columns(features=[AGE], targets=[Category(name="size", levels=["10", "1.5"])])


def test_x_has_the_columns_of_each_feature_in_order() -> None:
    assert COLUMNS.x_names() == ["sex=f", "sex=m", "age", "age (missing)", "sold"]
    assert COLUMNS.slices() == {"sex": slice(0, 2), "age": slice(2, 4), "sold": slice(4, 5)}
    cells: dict[str, Cells] = {
        "age": np.array([np.nan, 3], np.float32),
        "sold": np.array([10.0, 11.0]),
        "sex": Texts(np.array([1, 0]), ["f", "m"]),
        "unused": np.zeros(2, np.float32),
    }
    x = COLUMNS.encode(cells)
    assert (x.dtype, x.tolist()) == (np.float32, [[0, 1, 2, 1, 0], [1, 0, 3, 0, 1]])
    assert COLUMNS.decode(x) == {"sex": ["m", "f"], "age": ["", "3"], "sold": ["1970-01-11", "1970-01-12"]}


@pytest.mark.parametrize("columns", [COLUMNS, CLASSES], ids=["amounts", "classes"])
def test_json_gives_the_same_columns_back(columns: Columns) -> None:
    assert Columns.model_validate_json(columns.model_dump_json()) == columns


def test_each_class_of_a_target_has_a_column_of_y_and_amounts_have_no_classes() -> None:
    assert (CLASSES.classes, CLASSES.y_names()) == (["10", "1.5"], ["size=10", "size=1.5"])
    assert (COLUMNS.classes, COLUMNS.y_names()) == ([], ["price"])
    cells = {"size": Texts(np.array([1, 0, 2, -1]), ["10", "1.5", "new"])}
    y = CLASSES.encode_targets(cells)
    assert (y.dtype, y.tolist()) == (np.float32, [[0, 1], [1, 0], [0, 0], [0, 0]])


@pytest.mark.parametrize(
    "text",
    [
        COLUMNS.model_dump_json().replace('"age"', '"sex"'),  # a name twice
        COLUMNS.model_dump_json().replace('"price"', '"sex"'),
        COLUMNS.model_dump_json().replace('"number"', '"integer"'),
        COLUMNS.model_dump_json().replace('"fill":2.0', '"fill":NaN'),
        COLUMNS.model_dump_json().replace('["f","m"]', "[]"),
        COLUMNS.model_dump_json().replace('"features":', '"other":1,"features":'),
        '{"features":[],"targets":[]}',
        CLASSES.model_dump_json().replace('"1.5"', '"10"'),
        CLASSES.model_dump_json().replace(
            '"gaps":0,"kind":"category","levels":["10', '"gaps":1,"kind":"category","levels":["10'
        ),
        CLASSES.model_dump_json().replace('"1.5"],"rare":0', '"1.5"],"rare":1'),
        CLASSES.model_dump_json().replace('"targets":[', '"targets":[{"kind":"number","name":"other"},'),
    ],
)
def test_json_that_is_no_columns_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Columns"):
        Columns.model_validate_json(text)


def test_columns_without_names_are_numbers_called_x_and_y() -> None:
    assert unnamed(1, 2).x_names() == ["x"]
    assert unnamed(1, 2).target_names == ["y_0", "y_1"]
    assert unnamed(3, 1).feature_names == ["x_0", "x_1", "x_2"]
