from collections.abc import Sequence
from datetime import date, datetime, timezone

import numpy as np
import pyarrow as pa
import pytest

from stages.columns import Notation, Texts
from stages.tables import gather
from stages.tables.gather import Column, Gathering


def gathered(*batches: Sequence[object] | pa.Array, read_as: str = "", day_first: bool | None = None) -> Column:
    gathering = Gathering(read_as)
    for batch in batches:
        assert not any(mask.any() for mask in gathering.add(pa.array(batch), Notation()).values())
    return gathering.column(day_first)


def texts(column: Column) -> list[str | None]:
    assert isinstance(column.cells, Texts)
    return [column.cells.values[code] if code >= 0 else None for code in column.cells.codes]


def test_batches_of_any_kinds_are_one_column() -> None:
    column = gathered([1.0, None], [None, None], [3.0])
    np.testing.assert_array_equal(column.cells, np.array([1, np.nan, np.nan, np.nan, 3], np.float32))
    assert texts(gathered(["a", None], ["", ""], ["b", "a"])) == ["a", None, None, None, "b", "a"]
    column = gathered(["", ""], ["", "2020-01-05"], ["2020-01-06"])
    np.testing.assert_array_equal(column.cells, [np.nan, np.nan, np.nan, 18266, 18267])
    assert gathered(["", "NA"], [None]).kind == "empty"


def test_cells_of_another_kind_are_missing_up_to_a_twentieth_of_those_that_are_there() -> None:
    column = gathered(["", "x", *map(str, range(19))])
    assert (column.kind, np.flatnonzero(column.other).tolist()) == ("number", [1])
    assert column.strays() == "the missing include 1 value not a number, such as 'x', in row 2"
    assert gathered(["x", *map(str, range(18))]).kind == "mixed"
    assert gathered(["x", *map(str, range(19))], read_as="category").kind == "category"


def test_a_mixed_column_says_which_cells_are_of_another_kind() -> None:
    column = gathered([*"xyyz", *map(str, range(6))])
    line = "4 of 10 values are not numbers, such as 'y', 'x', 'z', first in rows 1, 2, 3: list them in generate.missing"
    assert column.fault(is_target=False).startswith(line)


def test_a_column_with_more_texts_than_numbers_is_to_be_read_again_as_text() -> None:
    column = gathered(["1", "x", "y"])
    assert (column.kind, column.read_as) == ("mixed", "text")
    assert texts(gathered(["1", "x", "y"], read_as="text")) == ["1", "x", "y"]


DAY = date(2020, 1, 5)


@pytest.mark.parametrize(
    "cells",
    [
        [DAY, None],
        [datetime(2020, 1, 5), None],
        pa.array([datetime(2020, 1, 5, tzinfo=timezone.utc), None], pa.timestamp("ns", "UTC")),
        pa.array([DAY, None], pa.date64()),
        pa.array([DAY, None]).dictionary_encode(),
        ["2020-01-05", ""],
    ],
)
def test_dates_of_any_type_are_days_since_1970(cells: Sequence[object]) -> None:
    column = gathered(cells)
    assert (column.kind, column.forms) == ("date", ["year-month-day"])
    np.testing.assert_array_equal(column.cells, [(DAY - date(1970, 1, 1)).days, np.nan])


def test_the_order_of_day_and_month_is_told_by_all_cells() -> None:
    assert gathered(["05/01/2020", "25/01/2020"]).forms == ["day/month/year"]
    assert gathered(["05/01/2020", "01/25/2020"]).forms == ["month/day/year"]
    assert gathered(["25.1.20", "1.2.99"]).forms == ["day/month/short year"]


def test_an_order_that_no_cell_tells_is_a_fault_unless_it_is_set() -> None:
    cells = ["05/05/2020", "05/01/2020"]
    column = gathered(cells)
    advice = "set generate.day_first to true or false"
    assert column.fault(is_target=False) == f"'05/01/2020' may be 2020-01-05 or 2020-05-01: {advice}"
    assert np.asarray(gathered(cells, day_first=True).cells)[1] == (date(2020, 1, 5) - date(1970, 1, 1)).days
    assert np.asarray(gathered(cells, day_first=False).cells)[1] == (date(2020, 5, 1) - date(1970, 1, 1)).days
    assert gathered(["05/05/2020"]).kind == "date"


def test_few_cells_that_are_no_dates_are_missing_and_many_are_a_fault() -> None:
    days = [f"2020-01-{day:02}" for day in range(1, 20)]
    assert (
        gathered([*days, "unknown"]).strays() == "the missing include 1 value not a date, such as 'unknown', in row 20"
    )
    assert gathered([*days, "unknown", "?"]).fault(is_target=False).startswith("2 of 21 values are not dates, such as ")
    assert gathered([*days, *["unknown"] * 20]).kind == "category"
    column = gathered([*days, "7"])
    assert column.read_as == "text"
    assert gathered([*days, "7"], read_as="text").strays().endswith("such as '7', in row 20")


def test_more_texts_than_are_kept_are_rare_or_dates_to_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MOST_TEXTS", 3)
    assert texts(gathered(["a", "b", "c"], ["d", "a", "e"])) == ["a", "b", "c", "", "a", ""]
    days = [f"{day}/01/2020" for day in range(13, 20)]
    assert gathered(days).read_as == "day/month/year"
    column = gathered(days, ["x", ""], read_as="day/month/year")
    first = (date(2020, 1, 13) - date(1970, 1, 1)).days
    np.testing.assert_array_equal(column.cells, [*range(first, first + 7), np.nan, np.nan])
    assert column.strays() == "the missing include 1 value not a date, such as 'x', in row 8"


def test_what_must_be_read_again_is_the_same_as_with_room_for_all_texts() -> None:
    days = [f"{day}/01/2020" for day in range(13, 20)]
    np.testing.assert_array_equal(gathered(days).cells, gathered(days, read_as="day/month/year").cells)
