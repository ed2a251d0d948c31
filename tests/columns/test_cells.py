import numpy as np
import pyarrow as pa
import pytest

from stages.columns import Notation
from stages.columns.cells import parsed


@pytest.mark.parametrize(
    ("cell", "decimal", "number"),
    [
        ("1,234", ".", 1234),
        ("1'234.5", ".", 1234.5),
        ("1 234 567", ",", 1234567),
        ("1.234,5", ",", 1234.5),
        ("-0,5e3", ",", -500),
        ("0,123", ".", None),  # no thousands
        ("0.123", ",", None),
        ("12,34", ".", None),
        ("1234,567", ".", None),
        ("1,234.5", ",", None),
    ],
)
def test_signs_between_digits_are_before_decimals_or_between_thousands(
    cell: str, decimal: str, number: float | None
) -> None:
    numbers, texts = parsed(pa.array([cell]), Notation(decimal))
    np.testing.assert_array_equal(numbers, [np.nan if number is None else number])
    assert texts.to_pylist() == [cell if number is None else None]
