import pytest

from stages.runtime.spread import evenly_spread


@pytest.mark.parametrize(
    ("n", "most", "expected"),
    [(0, 3, []), (1, 1000, [0]), (5, 1000, [0, 1, 2, 3, 4]), (5, 3, [0, 2, 4]), (9, 1, [0])],
)
def test_evenly_spread_indices(n: int, most: int, expected: list[int]) -> None:
    assert evenly_spread(n, most) == expected


def test_evenly_spread_indices_of_many_reach_both_ends() -> None:
    rows = evenly_spread(10**8, 1000)
    assert (rows[0], rows[-1], len(set(rows))) == (0, 10**8 - 1, 1000)
