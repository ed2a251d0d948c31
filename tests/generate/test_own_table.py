from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.columns import Columns
from stages.dataset import Dataset
from stages.generate import split
from stages.generate.own_table import OwnTable, points_of_table
from stages.generate.stage import Params
from stages.runtime import params
from stages.runtime.errors import UserError
from tests.conftest import LESSON, links

SETTINGS: dict[str, Any] = {
    "source": "table",
    "path": "data/raw/t.csv",
    "target": "price",
    "features": None,
    "test_fraction": 0.2,
    "seed": 1,
}
DIFFERENT = "a list of different names, as text"


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(tmp_path / "data/raw").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)


def points(content: str, **changes: Any) -> tuple[Dataset, Dataset]:
    Path("data/raw/t.csv").write_text(content, encoding="utf-8")
    settings = {key: value for key, value in (SETTINGS | changes).items() if value != "absent"}
    return points_of_table(OwnTable(**settings), lambda rows: None)


def fault(content: str, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        points(content, **changes)
    return str(caught.value)


def table(n: int) -> str:
    return "area,price,city\n" + "".join(f"{i},{i}.5,{'ab'[i % 2]}\n" for i in range(n))


def checked(generate: Any) -> Params:
    return params.check("params.yaml", params.load(str(LESSON)) | {"generate": generate}, Params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "tabel"}, "source: must be 'curve' or 'table', got 'tabel'"),
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
        ({"categories": ["price"]}, "categories: must not name the target 'price', got ['price']"),
        ({"categories": ["a", "a"]}, f"categories: must be {DIFFERENT}, got ['a', 'a']"),
        (
            {"features": ["a"], "categories": ["b"]},
            "categories: must name only columns in generate.features, not 'b', got ['b']",
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


def test_the_rows_are_split_at_random_and_stay_in_order() -> None:
    train, test = points(table(100), categories=["city"])
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
    assert not torch.equal(points(table(100), features=["area"], seed=2)[1].x[:, 0], test.x[:, 0])


def test_features_keep_the_order_in_which_they_are_given() -> None:
    train, _ = points(table(10), target="area", features=["city", "price"], categories=["city"])
    assert train.names == Columns(features=["city", "price"], targets=["area"], categories={"city": ["a", "b"]})


def test_a_table_of_its_own_to_test_on_may_have_its_columns_in_any_order() -> None:
    Path("data/raw/u.csv").write_text("price,other,area\n7,x,8\n")
    split_off = {"test_fraction": "absent", "test_path": "data/raw/u.csv"}
    train, test = points(table(10), features=["area"], **split_off)
    assert len(train.x) == 10
    assert (test.x.tolist(), test.y.tolist()) == ([[8]], [[7]])
    assert train.columns == test.columns
    Path("data/raw/u.csv").write_text("area\n8\n")
    assert fault(table(10), features=["area"], **split_off) == "data/raw/u.csv: has no column price: it has area"
    Path("data/raw/u.csv").write_text("price,area,city\n7,8,a\n7,8,c\n")
    line = "column city: 1 value is not in the training rows, such as 'c', in row 2: "
    assert fault(table(10), categories=["city"], **split_off).startswith(f"data/raw/u.csv: {line}")


def test_several_targets_are_the_columns_of_y() -> None:
    train, _ = points(table(10), target=["price", "area"], features=["city"], categories=["city"])
    assert torch.equal(train.y[:, 0], train.y[:, 1] + 0.5)


@pytest.mark.parametrize(("n", "fraction", "left"), [(2, 0.2, "2 and 0"), (1, 0.2, "1 and 0"), (3, 0.6, "1 and 2")])
def test_a_table_that_is_too_small_to_split_is_refused(n: int, fraction: float, left: str) -> None:
    line = f"generate.test_fraction must leave at least 2 rows to train on and 1 to test on, got {left}"
    assert fault(table(n), features=["area"], test_fraction=fraction) == f"data/raw/t.csv: {line}"


def test_a_table_of_three_rows_can_be_split() -> None:
    assert len(points(table(3), features=["area"], test_fraction=0.4)[1].x) == 1


def test_a_value_that_only_test_rows_have_is_named() -> None:
    _, test = points(table(100), features=["area"])
    rows = [int(area) + 1 for area in test.x[:4, 0]]
    lines = table(100).splitlines()
    for row in rows:
        lines[row] = lines[row].replace(",b", ",a").replace(",a", ",rare")
    first = ", ".join(map(str, rows[:3]))
    advice = "remove such rows, or choose another generate.seed"
    assert fault("\n".join(lines), categories=["city"]) == (
        f"data/raw/t.csv: column city: 'rare' occurs only among the test rows, first in rows {first}: {advice}"
    )


def test_training_values_that_float32_cannot_tell_apart_are_refused_and_those_to_test_on_are_not() -> None:
    times = "time,price\n" + "".join(f"{1_700_000_000 + i},{i}\n" for i in range(100))
    assert "subtract an offset" in fault(times)
    Path("data/raw/u.csv").write_text(times)
    spread = "time,price\n0,1\n2000000000,2\n"
    assert len(points(spread, test_fraction="absent", test_path="data/raw/u.csv")[1].x) == 100


def test_a_table_of_nothing_but_the_target_is_refused() -> None:
    assert fault("price\n1\n2\n") == "data/raw/t.csv: has no columns other than the target"
    assert fault("price,,\n1,2,3\n").startswith("data/raw/t.csv: has a column without a name: ")
    assert fault("price,a,a\n1,2,3\n").startswith("data/raw/t.csv: has more than one column a: ")


def test_pieces_are_parted_as_if_they_were_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "PIECE_BYTES", 100)
    rows = np.random.default_rng(1).random((50, 3), np.float32)
    is_test = split.choose_test_rows("t", 50, 0.3, 1)
    pieces = list(split.in_pieces(np.array_split(rows, 20)))
    assert 1 < len(pieces) < 20
    train, test = split.train_and_test(pieces, is_test, Columns(features=["a", "b"], targets=["c"]))
    assert not pieces
    for part, expected in ((train, rows[~is_test]), (test, rows[is_test])):
        np.testing.assert_array_equal(np.hstack([part.x, part.y]), expected)


def test_a_single_test_row_with_a_value_of_its_own_is_named() -> None:
    message = fault("c,price\na,1\nb,2\na,3\n", categories=["c"], test_fraction=0.34)
    assert message == (
        "data/raw/t.csv: column c: 'b' occurs only among the test rows, in row 2: "
        "remove such rows, or choose another generate.seed"
    )


DECOMPOSED, COMPOSED = "Gro\u0308\u00dfe", "Gr\u00f6\u00dfe"


@pytest.mark.parametrize("written", [DECOMPOSED, COMPOSED])
@pytest.mark.parametrize("name", [DECOMPOSED, COMPOSED])
def test_a_name_may_be_written_with_accents_of_their_own(written: str, name: str) -> None:
    settings: dict[str, Any]
    for settings in ({"features": [name]}, {"target": name, "features": ["price"]}, {"categories": [name]}):
        train, _ = points(f"{written},price\n" + "1,2\n2,3\n" * 50, **settings)
        assert COMPOSED in [*train.names.features, *train.names.targets]
    with pytest.raises(UserError, match="features: must be null, or a list of different names"):
        checked(SETTINGS | {"features": [DECOMPOSED, COMPOSED]})
    with pytest.raises(UserError, match="features: must not name the target"):
        checked(SETTINGS | {"features": [DECOMPOSED], "target": COMPOSED})


@links
@pytest.mark.parametrize("place", ["t.csv", "./t.csv", "link.csv", "hard.csv", "copy.csv"])
def test_a_table_is_not_tested_on_itself(place: str) -> None:
    Path("data/raw/t.csv").touch()
    Path("data/raw/link.csv").symlink_to("t.csv")
    Path("data/raw/hard.csv").hardlink_to("data/raw/t.csv")
    Path("data/raw/copy.csv").write_text(table(10))
    path = f"data/raw/{place}"
    message = fault(table(10), features=["area"], test_fraction="absent", test_path=path)
    rule = "generate.test_path must be another table than generate.path, data/raw/t.csv: both hold the same rows"
    assert message == f"{path}: {rule}"


@links
@pytest.mark.parametrize("key", ["path", "test_path"])
def test_a_folder_behind_a_link_is_refused_since_dvc_does_not_see_it(key: str) -> None:
    Path("elsewhere/inner").mkdir(parents=True)
    Path("elsewhere/inner/t.csv").write_text(table(10))
    Path("data/raw/link").symlink_to("../../elsewhere")
    Path("data/raw/tables.csv").symlink_to("../../elsewhere/inner")
    advice = "is a link to a folder, where DVC notices no changes: move the folder itself there, or link its files"
    for path, link in (("link/inner/t.csv", "link"), ("tables.csv", "tables.csv")):
        changes = {key: f"data/raw/{path}"} | ({"test_fraction": "absent"} if key == "test_path" else {})
        assert fault(table(10), features=["area"], **changes) == f"data/raw/{link}: {advice}"


@links
def test_a_link_to_a_file_is_read() -> None:
    Path("t.csv").write_text(table(10))
    Path("data/raw/link.csv").symlink_to("../../t.csv")
    train, test = points("", path="data/raw/link.csv", features=["area"])
    assert (len(train.x), len(test.x)) == (8, 2)
