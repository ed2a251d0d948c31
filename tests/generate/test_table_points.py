from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from stages.columns import Category, Date, Number
from stages.dataset import Dataset
from stages.generate import table_points
from stages.generate.own_table import OwnTable
from stages.generate.table_points import points_of_table
from stages.runtime import files
from stages.runtime.errors import UserError
from tests.conftest import links

SETTINGS: dict[str, Any] = {
    "source": "table",
    "path": "data/raw/t.csv",
    "target": "price",
    "features": None,
    "test_fraction": 0.2,
    "seed": 1,
}
APART = {"test_fraction": None, "test_path": "data/raw/u.csv"}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Path(tmp_path / "data/raw").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    watched = dict(files._watched)
    yield
    files._watched.clear()
    files._watched.update(watched)


def points(content: str | bytes, tests: str | None = None, **changes: Any) -> tuple[Dataset, Dataset]:
    Path("data/raw/t.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    if tests is not None:
        Path("data/raw/u.csv").write_text(tests)
        changes = APART | changes
    files._watched.clear()
    return points_of_table(OwnTable.model_validate(SETTINGS | changes), lambda rows: None)


def fault(content: str | bytes, tests: str | None = None, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        points(content, tests, **changes)
    return str(caught.value)


def decisions(content: str, tests: str | None = None, **changes: Any) -> dict[str, str]:
    return points(content, tests, **changes)[0].decisions or {}


def column(name: str, *cells: object) -> str:
    """Return a table of 20 rows whose columns are a price, an area and these cells, in turn."""
    rows = (f"{i},{i * i % 17},{cells[i % len(cells)]}\n" for i in range(20))
    return f"price,area,{name}\n{''.join(rows)}"


def table(n: int) -> str:
    return "area,price,city\n" + "".join(f"{i},{i}.5,{'ab'[i % 2]}\n" for i in range(n))


def test_the_rows_are_split_at_random_and_stay_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_points, "BLOCK_ROWS", 7)
    train, test = points(table(100))
    assert (len(train.x), len(test.x)) == (80, 20)
    assert train.names.x_names() == ["area", "city=a", "city=b"]
    for part in (train, test):
        area = part.x[:, 0]
        assert (area.diff() > 0).all()
        assert torch.equal(part.y[:, 0], area + 0.5)
        assert torch.equal(part.x[:, 2], area % 2)
    assert sorted([*train.x[:, 0].tolist(), *test.x[:, 0].tolist()]) == list(range(100))
    drawn = torch.randperm(100, generator=torch.Generator().manual_seed(1))[:20]
    assert test.x[:, 0].tolist() == sorted(drawn.tolist())
    assert not torch.equal(points(table(100), seed=2)[1].x[:, 0], test.x[:, 0])


def test_features_keep_the_order_in_which_they_are_given() -> None:
    train, _ = points(table(10), target="area", features=["city", "price"])
    assert train.names.feature_names == ["city", "price"]
    assert train.names.target_names == ["area"]


def test_several_targets_are_the_columns_of_y() -> None:
    train, _ = points(table(10), target=["price", "area"], features=["city"])
    assert torch.equal(train.y[:, 0], train.y[:, 1] + 0.5)


@pytest.mark.parametrize(("n", "fraction", "left"), [(2, 0.2, "2 and 0"), (1, 0.2, "1 and 0"), (3, 0.6, "1 and 2")])
def test_a_table_that_is_too_small_to_split_is_refused(n: int, fraction: float, left: str) -> None:
    line = f"generate.test_fraction must leave at least 2 rows to train on and 1 to test on, got {left}"
    assert fault(table(n), test_fraction=fraction) == f"data/raw/t.csv: {line}"


def test_a_table_of_three_rows_can_be_split() -> None:
    assert len(points(table(3), features=["area"], test_fraction=0.4)[1].x) == 1


@pytest.mark.parametrize(
    ("name", "cells", "decision"),
    [
        ("city", ["a", "b"], "a category of 2 levels"),
        ("gaps", [1, 2, "", 3], "4 missing, filled with 2"),
        ("marked", [1, 2, "?", 3], "4 missing, filled with 2"),
        ("name", [f"n{i}" for i in range(20)], "left out: 16 texts in 16 training rows, none of them in 3"),
        ("note", [*"aaaaabcdefghijklmnop"], "left out: 13 texts in 16 training rows: list it in generate.categories"),
        ("same", [7], "left out: the same value in all training rows"),
        ("same", ["x"], "left out: the same value in all training rows"),
        ("Unnamed: 0", range(20), "left out: the number of the row"),
        ("id", range(1, 21), "left out: the number of the row"),
        ("none", [""], "left out: no values in the training rows"),
        ("", range(20), "left out: 1"),
        ("area", [1, 2], "left out: 2 columns have this name"),
        (
            "stray",
            ["oops", *range(19)],
            "1 missing, filled with 9; the missing include 1 value not a number, such as 'oops'",
        ),
    ],
)
def test_what_is_decided_about_a_column_is_said(name: str, cells: list[object], decision: str) -> None:
    content = "b," + column(name, *cells).replace("\n", "\n1,").removesuffix("1,").replace("\n1,1", "\n2,1")
    said = decisions(content, missing=["?"])
    assert said[name or "columns without a name"].startswith(decision)


def test_a_plain_number_is_nothing_to_say() -> None:
    assert decisions(column("other", *range(1, 8))) == {}


def test_columns_that_tell_nothing_stay_where_the_user_lists_them() -> None:
    for name, cells in (("id", range(20)), ("same", [7]), ("same", ["x"]), ("note", [*"aaaaabcdefghijklmnop"])):
        train, _ = points(column(name, *cells), features=["area", name])
        assert train.names.feature_names == ["area", name]
    assert "note" in points(column("note", *"aaaaabcdefghijklmnop"), categories=["note"])[0].names.feature_names


def test_listed_integers_are_categories_beside_those_that_are_recognised() -> None:
    content = "price,zone,city\n" + "".join(f"{i},{i % 2},{'ab'[i // 2 % 2]}\n" for i in range(40))
    assert points(content, categories=["zone"])[0].names.x_names() == ["zone=0", "zone=1", "city=a", "city=b"]


def test_a_row_without_a_target_is_left_out_and_counted() -> None:
    content = column("b", 1, 2)
    for cells, strays in (
        (("", "NA"), ""),
        (("", "x"), "the missing include 1 value not a number, such as 'x', in row 6; "),
    ):
        train, test = points(content.replace("\n3,", f"\n{cells[0]},").replace("\n5,", f"\n{cells[1]},") + "20,3,1\n")
        assert len(train.x) + len(test.x) == 19
        assert (train.decisions or {})["price"] == f"{strays}2 rows without a target left out"


DAYS = [f"2020-{1 + i * 7 % 12:02}-{i + 1:02}" for i in range(20)]


def test_test_rows_are_the_latest_if_asked_for_and_of_any_time_if_not() -> None:
    content = column("sold", *DAYS)
    assert decisions(content)["sold"].endswith(
        "; the test rows are drawn from all dates; generate.test_latest takes the latest"
    )
    train, test = points(content, test_latest=True, seed=None)
    assert (train.decisions or {})["sold"].endswith("; the test rows are the latest")
    sold = train.names.x_names().index("sold")
    assert train.x[:, sold].max() < test.x[:, sold].min()
    assert len(test.x) == 4


def test_the_latest_rows_need_dates() -> None:
    line = "data/raw/t.csv: has no dates among the features, which generate.test_latest needs"
    assert fault(column("b", 1, 2), test_latest=True) == line


def test_a_table_of_its_own_to_test_on_may_be_written_otherwise() -> None:
    train, test = points(table(10), "city;price;other;area\nb;7,5;x;8\n", features=["area", "city"])
    assert len(train.x) == 10
    assert (test.x.tolist(), test.y.tolist()) == ([[8, 0, 1]], [[7.5]])
    assert train.columns == test.columns


def test_what_is_unusual_in_test_rows_is_counted() -> None:
    tests = "area,price,city\n1,2,a\nx,3,new\n1000,4,a\n,5,\n9,,b\n9,no,new\n"
    assert decisions(table(10), tests) == {
        "area": "1 of 4 test rows with a value far outside the training range 0 to 9; "
        "1 of 4 test rows with a value not a number, taken as missing",
        "city": "a category of 2 levels; 1 of 4 test rows with a value rare or new",
        "price": "2 test rows without a target left out",
    }


def test_faults_of_a_table_to_test_on_are_reported() -> None:
    assert fault(table(10), "area\n8\n") == "data/raw/u.csv: has no column city, price: it has area"
    assert fault(table(10), "area,price,city\n1,,a\n") == "data/raw/u.csv: has no rows with a target: fill it in"
    assert fault(table(10), "area,price,city\ninf,1,a\n1,1e-60,a\n").split("\n") == [
        "data/raw/u.csv: column area: 1 value that float32 cannot hold, in row 1: remove such rows",
        "data/raw/u.csv: column price: 1 value that float32 cannot hold, in row 2: remove such rows",
    ]


def test_training_values_that_float32_cannot_tell_apart_are_refused_and_those_to_test_on_are_not() -> None:
    times = "time,price\n" + "".join(f"{1_700_000_000 + i},{i}\n" for i in range(100))
    assert "subtract an offset" in fault(times)
    assert len(points("time,price\n0,1\n2000000000,2\n", times)[1].x) == 100


def test_a_table_without_a_column_to_predict_from_is_refused() -> None:
    advice = "add columns of numbers, dates or texts that repeat"
    assert fault("price\n1\n2\n3\n") == (
        f"data/raw/t.csv: has no column to predict from: all of them are targets: {advice}"
    )
    line = "id left out: the number of the row; columns without a name left out: 1"
    reasons = fault("price,id,\n" + "".join(f"{i},{i},\n" for i in range(9)))
    assert reasons.startswith("data/raw/t.csv: has no column to predict from: ")
    assert all(reason in reasons for reason in line.split("; "))


def test_columns_of_parquet_that_are_no_numbers_texts_or_dates_are_left_out() -> None:
    parquet.write_table(
        pa.table({"price": range(20), "area": [i % 7 for i in range(20)], "b": [[1]] * 20}), "data/raw/t.parquet"
    )
    assert decisions("", path="data/raw/t.parquet") == {"b": "left out: values of type list<element: int64>"}


CELLS = st.fixed_dictionaries(
    {
        "number": st.one_of(st.none(), st.integers(-99, 99)),
        "text": st.sampled_from(["a", "b", "new", ""]),
        "day": st.integers(1, 28),
    }
)


def test_nothing_is_learnt_from_test_rows() -> None:
    header = "price,number,text,day,id"
    rows = [
        f"{i},{i * 7 % 11 if i % 9 else ''},{'ab'[i % 2] if i % 7 else ''},2020-01-{i % 28 + 1:02},{i}"
        for i in range(40)
    ]
    expected, _ = points("\n".join([header, *rows]))
    assert [type(feature) for feature in expected.names.features] == [Number, Category, Date]
    drawn = torch.randperm(40, generator=torch.Generator().manual_seed(1))[:8].tolist()

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(tests=st.lists(CELLS, min_size=8, max_size=8))
    def learns_the_same(tests: list[dict[str, Any]]) -> None:
        changed = list(rows)
        for row, cells in zip(drawn, tests, strict=True):
            number = "" if cells["number"] is None else cells["number"]
            changed[row] = f"{row * 3},{number},{cells['text']},2020-01-{cells['day']:02},{cells['day']}"
        train, _ = points("\n".join([header, *changed]))
        assert train.columns == expected.columns
        assert torch.equal(train.x, expected.x)

    learns_the_same()


BROKEN: dict[str, tuple[str | bytes, list[dict[str, Any]]]] = {  # a table, and what its messages say to change, in turn
    "encoding": (column("é", 1, 2).encode("cp1252"), [{"encoding": "cp1252"}]),
    "UTF-16": (column("é", 1, 2).encode("utf-16-le"), [{"encoding": "utf-16-le"}]),
    "text among numbers": (column("b", *"x123"), [{"missing": ["x"]}]),
    "texts among numbers": (column("b", *"xyz123456"), [{"missing": ["x", "y", "z"]}]),
    "numbers and texts": (column("b", *"xy12"), [{"categories": ["b"]}]),
    "unknown dates": (column("b", "unknown", "2020-01-05", "2020-01-06"), [{"missing": ["unknown"]}]),
    "order of day and month": (column("b", "01/02/2020", "03/04/2020"), [{"day_first": False}]),
    "several": (
        "price,b,c\n" + "".join(f"{i},{'x123'[i % 4]},0{i % 4 + 1}/02/2020\n" for i in range(20)),
        [{"missing": ["x"], "day_first": True}],
    ),
    "encoding and text": (column("é", *"x123").encode("cp1252"), [{"encoding": "cp1252"}, {"missing": ["x"]}]),
    "dates as a target": (
        "price,area,b\n" + "".join(f"2020-01-{i + 1:02},{i},{i % 7}\n" for i in range(20)),
        [{"target": "area"}],
    ),
    "numbers and texts as a target": (
        "price,area\n" + "".join(f"{['1', '2', '3+'][i % 3]},{i}\n" for i in range(20)),
        [{"categories": ["price"]}],
    ),
    "one class": ("price,area,b\n" + "".join(f"a,{i},{i % 7}\n" for i in range(20)), [{"target": "area"}]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_messages_say_leads_on_in_at_most_two_rounds(name: str) -> None:
    content, changes = BROKEN[name]
    change: dict[str, Any] = {}
    for more in changes:
        message = fault(content, **change)
        for key, value in more.items():
            values = value if isinstance(value, list) and key == "missing" else []
            assert f"generate.{key}" in message
            assert all(repr(cell) in message for cell in values)
        change |= more
    train, test = points(content, **change)
    assert train.x.isfinite().all()
    assert len(test.x)


@links
@pytest.mark.parametrize("place", ["t.csv", "./t.csv", "link.csv", "hard.csv", "copy.csv"])
def test_a_table_is_not_tested_on_itself(place: str) -> None:
    Path("data/raw/t.csv").touch()
    Path("data/raw/link.csv").symlink_to("t.csv")
    Path("data/raw/hard.csv").hardlink_to("data/raw/t.csv")
    Path("data/raw/copy.csv").write_text(table(10))
    path = f"data/raw/{place}"
    message = fault(table(10), **APART | {"test_path": path})
    rule = "generate.test_path must be another table than generate.path, data/raw/t.csv: both hold the same rows"
    assert message == f"{path}: {rule}"


@links
@pytest.mark.parametrize("key", ["path", "test_path"])
def test_a_folder_behind_a_link_is_refused_since_dvc_does_not_see_it(key: str) -> None:
    Path("elsewhere/inner").mkdir(parents=True)
    Path("elsewhere/inner/t.csv").write_text(table(10))
    Path("data/raw/link").symlink_to("../../elsewhere")
    Path("data/raw/tables.csv").symlink_to("../../elsewhere/inner")
    advice = "is a link to a folder, in which DVC notices no changes: move the folder itself there, or link its files"
    for path, link in (("link/inner/t.csv", "link"), ("tables.csv", "tables.csv")):
        changes = (APART if key == "test_path" else {}) | {key: f"data/raw/{path}"}
        assert fault(table(10), **changes) == f"data/raw/{link}: {advice}"


@links
def test_a_link_to_a_file_is_read() -> None:
    Path("t.csv").write_text(table(10))
    Path("data/raw/link.csv").symlink_to("../../t.csv")
    train, test = points("", path="data/raw/link.csv")
    assert (len(train.x), len(test.x)) == (8, 2)


def digest(content: str, tests: str | None = None, **changes: Any) -> str:
    train, test = points(content, tests, **changes)
    assert train.digest is None
    assert test.digest is not None
    return test.digest


def test_the_digest_of_the_test_rows_is_the_same_for_another_choice_of_columns() -> None:
    ours = digest(table(100))
    assert digest(table(100), features=["city"]) == ours
    assert digest(table(100), categories=["area"]) == ours
    assert digest(table(100), missing=[7]) == ours
    assert digest(table(100), target="area") == ours


def test_the_digest_of_the_test_rows_is_another_for_other_rows_and_for_another_table() -> None:
    digests = [
        digest(table(100)),
        digest(table(100), seed=2),
        digest(table(100), test_fraction=0.3),
        digest(table(101)),
        digest(table(100).replace("a", "A")),  # of a column that may not be a feature
        digest(table(100), table(20)),
        digest(table(100), table(21)),
    ]
    assert len(set(digests)) == len(digests)


def test_the_digest_of_a_test_table_does_not_depend_on_the_table_to_train_on() -> None:
    assert digest(table(100), table(20)) == digest(table(90), table(20))
    without_target = table(20).replace("3.5", "", 1)
    assert digest(table(100), without_target) != digest(table(100), without_target.replace("4.5", "", 1))
