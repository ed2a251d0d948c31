from typing import Any

import pytest

from stages.generate.own_table import OwnTable
from stages.generate.stage import Params
from stages.runtime import params
from stages.runtime.errors import UserError
from tests.conftest import LESSON

SETTINGS: dict[str, Any] = {
    "source": "table",
    "path": "data/raw/t.csv",
    "target": "price",
    "features": None,
    "test_fraction": 0.2,
    "seed": 1,
}
DIFFERENT = "a list of different names, as text"
DECOMPOSED, COMPOSED = "Gro\u0308\u00dfe", "Gr\u00f6\u00dfe"


ENCODING = "must be null, or the name of a text encoding, such as cp1252"


def checked(generate: Any) -> Params:
    return params.check("params.yaml", params.load(str(LESSON)) | {"generate": generate}, Params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "tabel"}, "source: must be 'curve' or 'table', got 'tabel': did you mean 'table'?"),
        ({"source": ["table"]}, "source: must be 'curve' or 'table', got ['table']"),
        ({"source": "absent"}, "source: is missing"),
        ({"path": "absent"}, "path: is missing"),
        ({"points": 3}, "points: is not a known key, got 3"),
        ({"table": 3}, "table: is not a known key, got 3"),
        ({"target": []}, f"target: must be the name of a column, or {DIFFERENT}, got []"),
        ({"target": ["a", "a"]}, f"target: must be the name of a column, or {DIFFERENT}, got ['a', 'a']"),
        ({"target": ""}, f"target: must be the name of a column, or {DIFFERENT}, got ''"),
        ({"target": 3}, f"target: must be the name of a column, or {DIFFERENT}, got 3"),
        ({"features": []}, f"features: must be null, or {DIFFERENT}, got []"),
        ({"features": "area"}, f"features: must be null, or {DIFFERENT}, got 'area'"),
        ({"features": ["a", "price"]}, "features: must not name the target 'price', got ['a', 'price']"),
        (
            {"target": ["price", "rent"], "categories": ["rent"]},
            "categories: must not name 'rent', one of several targets: a category must be the only one, got ['rent']",
        ),
        ({"categories": ["a", "a"]}, f"categories: must be null, or {DIFFERENT}, got ['a', 'a']"),
        ({"features": [DECOMPOSED, COMPOSED]}, f"features: must be null, or {DIFFERENT}, got {[DECOMPOSED, COMPOSED]}"),
        ({"missing": "?"}, "missing: must be a list of texts and numbers, got '?'"),
        ({"missing": [None]}, "missing: must be a list of texts and numbers, got [None]"),
        ({"encoding": "latin-99"}, f"encoding: {ENCODING}, got 'latin-99'"),
        ({"encoding": "rot13"}, f"encoding: {ENCODING}, got 'rot13'"),
        ({"encoding": 3}, f"encoding: {ENCODING}, got 3"),
        ({"day_first": "yes"}, "day_first: must be true, false or null, got 'yes'"),
        ({"test_latest": 1}, "test_latest: must be true or false, got 1"),
        (
            {"test_fraction": "absent", "test_path": "data/raw/u.csv", "test_latest": True},
            "test_latest: must be false with generate.test_path, got True",
        ),
        (
            {"features": ["a"], "categories": ["b"]},
            "categories: must name only the target and columns in generate.features, not 'b', got ['b']",
        ),
        ({"test_fraction": 0}, "test_fraction: must be greater than 0, got 0"),
        ({"test_fraction": 1}, "test_fraction: must be less than 1, got 1"),
        (
            {"test_path": "data/raw/u.csv"},
            "test_path: must not be given with generate.test_fraction, got 'data/raw/u.csv'",
        ),
        (
            {"test_fraction": "absent"},
            "test_path: must be given if generate.test_fraction is not, got None",
        ),
        ({"seed": "absent"}, "seed: must be given with generate.test_fraction, got None"),
        ({"seed": -1}, "seed: must be greater than or equal to 0, got -1"),
        ({"seed": 2**31}, "seed: must be less than 2147483648, got 2147483648"),
    ],
)
def test_each_fault_of_the_section_is_reported_in_a_line(change: dict[str, Any], message: str) -> None:
    settings = {key: value for key, value in (SETTINGS | change).items() if value != "absent"}
    with pytest.raises(UserError) as caught:
        checked(settings)
    assert str(caught.value) == f"params.yaml: generate.{message}"


def test_a_section_that_is_no_mapping_is_reported_in_a_line() -> None:
    with pytest.raises(UserError, match="^params.yaml: generate: must be a mapping, got 3$"):
        checked(3)


@pytest.mark.parametrize("name", ["path", "test_path"])
@pytest.mark.parametrize(
    "path",
    [
        "/data/raw/t.csv",
        "data/t.csv",
        "data/raw/../t.csv",
        "data/raw",
        "t.csv",
        r"data/raw/..\t.csv",
        "data/rawer/t",
        "",
    ],
)
def test_a_table_that_dvc_does_not_watch_is_refused(name: str, path: str) -> None:
    settings = SETTINGS | {name: path} | ({"test_fraction": None} if name == "test_path" else {})
    rule = "must be in data/raw/, where DVC notices changes, e.g. data/raw/houses.csv"
    with pytest.raises(UserError) as caught:
        checked(settings)
    assert str(caught.value) == f"params.yaml: generate.{name}: {rule}, got {path!r}"


def test_a_table_to_test_on_tolerates_a_seed_and_needs_none() -> None:
    for seed in (1, None):
        checked(SETTINGS | {"test_fraction": None, "test_path": "data/raw/u.csv", "seed": seed})


def test_the_latest_rows_need_no_seed() -> None:
    checked(SETTINGS | {"test_latest": True, "seed": None})


def test_categories_may_be_absent_null_or_empty() -> None:
    checked(SETTINGS)
    checked(SETTINGS | {"categories": None})
    checked(SETTINGS | {"categories": []})


def test_missing_cells_may_be_texts_and_numbers() -> None:
    table = OwnTable.model_validate(SETTINGS | {"missing": ["?", -999, 0.5]})
    assert table.missing_texts == ["?", "-999", "0.5"]
