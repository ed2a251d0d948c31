import pytest

from stages.runtime.errors import duration


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0.0 s"),
        (2.34, "2.3 s"),
        (42.4, "42 s"),
        (59.6, "1 min 0 s"),
        (209, "3 min 29 s"),
        (7500, "2 h 5 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_a_duration_is_told_in_its_two_largest_units(seconds: float, told: str) -> None:
    assert duration(seconds) == told
