"""Tables whose target is a category."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages import dataset
from stages.columns.category import MOST_LEVELS
from stages.dataset import Dataset
from stages.generate.split import choose_test_rows
from tests.generate.test_table_points import decisions, fault, in_folder, points

__all__ = ["in_folder"]  # a fixture of all tests here


def table(*cells: object, rows: int = 60) -> str:
    """Return a table of rows with a number, and these cells in turn as prices."""
    return "area,price\n" + "".join(f"{i * 7 % 11},{cells[i % len(cells)]}\n" for i in range(rows))


def classes_of(part: Dataset) -> list[str]:
    """Return the class of each row."""
    assert part.classes is not None
    return [part.names.classes[index] for index in part.classes.tolist()]


@pytest.mark.parametrize(
    ("cells", "changes", "classes"),
    [
        (["b", "a", "c"], {}, ["a", "b", "c"]),
        (["10", "9", "-1", "2.5"], {"categories": ["price"]}, ["-1", "2.5", "9", "10"]),
        (["10", "9", "a"], {"categories": ["price"]}, ["9", "10", "a"]),
        (["1.0", "1", "01"], {"categories": ["price"]}, ["01", "1", "1.0"]),
        (["true", "false"], {"categories": ["price"]}, ["false", "true"]),
        (["yes", "no"], {}, ["no", "yes"]),
        (["2020-01-05", "2020-01-06"], {"categories": ["price"]}, ["2020-01-05", "2020-01-06"]),
        (["b", "a", "?"], {"missing": ["?"]}, ["a", "b"]),
    ],
)
def test_the_values_of_a_target_are_its_classes_numbers_in_their_order(
    cells: Sequence[str], changes: dict[str, Any], classes: list[str]
) -> None:
    train, test = points(table(*cells), **changes)
    assert train.names.classes == test.names.classes == classes
    assert train.names.y_names() == [f"price={level}" for level in classes]
    for part in (train, test):
        assert (part.y.sum(dim=1) == 1).all()
    expected = Counter(cell for cell in (cells[i % len(cells)] for i in range(60)) if cell in classes)
    assert Counter([*classes_of(train), *classes_of(test)]) == expected


def test_each_row_has_its_own_class() -> None:
    content = "area,price\n" + "".join(f"{i},c{i % 5}\n" for i in range(50))
    for part in points(content):
        assert classes_of(part) == [f"c{int(area) % 5}" for area in part.x[:, 0]]


@pytest.mark.parametrize(("cells", "amounts"), [(["true", "false"], 2), (["1", "2"], 2), (["1.5", "2.25"], 2)])
def test_a_target_of_two_numbers_is_predicted_as_amounts_and_how_to_predict_classes_is_said(
    cells: Sequence[str], amounts: int
) -> None:
    content = table(*cells)
    assert points(content)[0].classes is None
    line = f"{amounts} different numbers, predicted as amounts: list it in generate.categories to predict classes"
    assert decisions(content) == {"price": line}


def test_few_whole_numbers_are_pointed_out_and_more_or_fractions_are_not() -> None:
    line = "12 different whole numbers, predicted as amounts: list it in generate.categories to predict classes"
    assert decisions(table(*range(12))) == {"price": line}
    assert decisions(table(*range(13))) == decisions(table("1", "2", "2.5")) == {}


def test_how_many_classes_there_are_is_said_and_those_of_few_training_rows_are_named() -> None:
    assert decisions(table("a", "b")) == {"price": "2 classes"}
    assert decisions(table(*"aaaaaaaaabccccc", rows=150)) == {
        "price": "3 classes; 1 of them in fewer than 10 training rows: 'b' (8)"
    }
    said = decisions(table(*(f"c{i}" for i in range(10)), rows=50))["price"]
    shown = ", ".join(f"'c{i}' (4)" for i in range(5))
    assert said == f"10 classes; 10 of them in fewer than 10 training rows: {shown}, …"


def test_a_row_without_a_class_is_left_out_and_counted() -> None:
    train, test = points(table("a", "b", ""))
    assert len(train.x) + len(test.x) == 40
    assert (train.decisions or {})["price"] == "2 classes; 20 rows without a target left out"


def test_one_class_or_more_than_a_thousand_are_refused() -> None:
    rule = f"price must have 2 to {MOST_LEVELS} different values in the training rows to be classes, got "
    assert fault(table("a")) == f"data/raw/t.csv: {rule}1: choose another generate.target"
    many = [f"c{i}" for i in range(MOST_LEVELS + 1)]
    assert fault(table(*many, rows=3003)) == f"data/raw/t.csv: {rule}1001: choose another generate.target"
    assert len(points(table(*many[:-1], rows=3000))[0].names.classes) == MOST_LEVELS


def test_a_single_row_of_another_class_is_trained_on() -> None:
    content = table("a") + "3,b\n"
    for seed in range(20):
        train, test = points(content, seed=seed)
        assert Counter(classes_of(train)) == {"a": 48, "b": 1}
        assert Counter(classes_of(test)) == {"a": 12}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(1, 40), min_size=2, max_size=9), fraction=st.floats(0.05, 0.5), seed=st.integers(0, 9)
)
def test_each_class_has_its_share_of_the_test_rows_to_one_row(counts: list[int], fraction: float, seed: int) -> None:
    classes = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    n, several = len(classes), sum(count for count in counts if count > 1)
    tests = round(n * fraction)
    if not 1 <= tests <= min(n - 2, several):
        return
    is_test = choose_test_rows("", n, fraction, seed, classes.numpy())
    assert is_test.sum() == tests
    for own, count in enumerate(counts):
        share = tests * count / several if count > 1 else 0
        assert abs(int(is_test[classes == own].sum()) - share) < 1


def test_which_rows_of_a_class_are_tested_on_is_random() -> None:
    classes = torch.arange(100) % 2
    drawn = sum(torch.from_numpy(choose_test_rows("", 100, 0.2, seed, classes.numpy())).int() for seed in range(1000))
    assert isinstance(drawn, torch.Tensor)
    assert drawn.min() > 200 - 5 * 13 and drawn.max() < 200 + 5 * 13  # 13: the standard deviation of such a count


def test_too_few_rows_to_test_on_are_reported() -> None:
    content = "area,price\n" + "".join(f"{i},c{max(i, 2)}\n" for i in range(20))
    line = "data/raw/t.csv: has too few rows to test on: most classes have a single one"
    assert fault(content, test_fraction=0.2) == line
    assert len(points(content, test_fraction=0.1)[1].x) == 2


def test_a_class_that_only_test_rows_have_is_counted_and_belongs_to_no_column() -> None:
    tests = "price,area\na,1\nnew,2\nb,3\nnewer,4\n,5\n"
    train, test = points(table("a", "b"), tests)
    assert test.y.tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    said = "2 classes; 1 test row without a target left out; 2 test rows of a class that no training row has"
    assert (train.decisions or {})["price"] == said


def test_the_latest_rows_may_hold_a_class_of_their_own() -> None:
    content = "sold,price\n" + "".join(f"2020-01-{i + 1:02},{'ab'[i % 2] if i < 25 else 'c'}\n" for i in range(30))
    train, test = points(content, test_latest=True, seed=None)
    assert train.names.classes == ["a", "b"]
    assert (test.y.sum(dim=1) == 0).sum() == 5


NAMES = st.one_of(
    st.sampled_from(
        [
            "a,b",
            'say "a"',
            "two\nlines",
            "a=b",
            "=",
            "中文",
            "é",
            "1.0",
            "1",
            "+1",
            "1e0",
            " a",
            "a ",
            "'",
            "[a]",
            "{a}",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(names=st.lists(NAMES, min_size=2, max_size=5, unique_by=str.strip))
def test_fuzz_odd_names_of_classes_come_through_every_file(names: list[str]) -> None:
    quoted = ['"{}"'.format(name.replace('"', '""')) for name in names]
    try:
        train, test = points(table(*quoted), categories=["price"])
    except Exception as error:  # such as names that mean a missing value, or a quote within a name
        assert type(error).__name__ == "UserError"
        return
    for path, part in (("train.pt", train), ("test.pt", test)):
        dataset.write(path, part)
        again = dataset.read(path)
        assert again.columns == train.columns
        assert torch.equal(again.y, part.y)
        assert set(classes_of(again)) <= {name.strip() for name in names}
    assert Path("train.pt").exists()
