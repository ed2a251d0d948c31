import numpy as np

from stages.columns import Category, Texts


def texts(*cells: str | None) -> Texts:
    values = sorted({cell for cell in cells if cell is not None})
    return Texts(np.array([-1 if cell is None else values.index(cell) for cell in cells], np.int32), values)


COMMON = ["us"] * 4 + ["eu"] * 3


def fitted(*cells: str | None) -> Category:
    column = Category.fit("origin", texts(*cells))
    assert column
    return column


def test_values_of_three_training_rows_are_levels_the_rarer_ones_share_a_level_and_gaps_have_one() -> None:
    column = fitted(*COMMON, "jp", "jp", "kr", None)
    assert column.labels() == ["origin=eu", "origin=us", "origin (rare)", "origin (missing)"]
    cells = texts("us", "jp", "new", None)
    assert column.encode(cells).tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert column.decode(column.encode(cells)) == ["us", "(rare)", "(rare)", ""]
    assert column.unlike_training(cells).tolist() == [False, True, True, False]
    assert column.decision() == "a category of 2 levels; one more for 2 rare values; one more for 1 missing value"


def test_without_rare_values_and_gaps_in_the_training_rows_both_are_zeros_later() -> None:
    column = fitted(*COMMON)
    assert column.encode(texts("eu", "new", None)).tolist() == [[1, 0], [0, 0], [0, 0]]
    assert column.decode(column.encode(texts("eu", "new"))) == ["eu", "(new)"]
    assert column.decision() == "a category of 2 levels"


def test_values_without_repetition_are_no_category() -> None:
    assert Category.fit("name", texts("a", "b", "c", "c", None)) is None


def test_a_level_may_be_called_like_one_of_ours() -> None:
    column = fitted(*["(rare)"] * 3, *["(missing)"] * 3, "x", None)
    assert len(set(column.labels())) == 4


def test_only_values_of_these_rows_are_learnt() -> None:
    cells = texts(*COMMON, "jp", "jp", "jp")
    assert Category.fit("origin", cells[np.arange(7)]) == fitted(*COMMON)


def test_the_thousand_most_frequent_values_are_levels() -> None:
    values = [f"{index:05}" for index in range(1100)]
    codes = np.repeat(np.arange(1100, dtype=np.int32), [3] * 100 + [4] * 1000)
    column = Category.fit("city", Texts(codes, values))
    assert column
    assert (column.levels, column.rare) == (values[100:], 100)
