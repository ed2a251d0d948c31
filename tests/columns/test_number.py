import numpy as np

from stages.columns import Number


def numbers(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_a_missing_number_is_the_median_of_the_training_rows_and_marked_in_a_second_column() -> None:
    column = Number.fit("age", numbers(1, 2, np.nan, 4))
    assert column.labels() == ["age", "age (missing)"]
    assert column.encode(numbers(np.nan, 7)).tolist() == [[2, 1], [7, 0]]
    assert column.decision() == "1 missing, filled with 2"


def test_without_gaps_in_the_training_rows_there_is_one_column_and_a_later_gap_is_the_median() -> None:
    column = Number.fit("age", numbers(1, 3, 5))
    assert column.labels() == ["age"]
    assert column.encode(numbers(np.nan, 7)).tolist() == [[3], [7]]
    assert column.decision() == ""


def test_what_was_encoded_is_decoded_to_the_same_float32() -> None:
    cells = np.append(np.geomspace(1e-30, 1e30, 999, dtype=np.float32), np.float32(np.nan))
    column = Number.fit("age", cells)
    decoded = column.decode(column.encode(cells))
    assert decoded[-1] == ""
    assert np.array_equal(np.array(decoded[:-1], np.float32), cells[:-1])


def test_a_number_is_unlike_training_beyond_the_range_by_more_than_its_width() -> None:
    column = Number.fit("model_year", numbers(1970, 1982))
    unlike = column.unlike_training(numbers(1957, 1958, 1994, 1995, 70, np.nan))
    assert unlike.tolist() == [True, False, False, True, True, False]
    assert column.limits() == "far outside the training range 1970 to 1982"
