import pytest

from stages.runtime.errors import did_you_mean, duration, one_of


@pytest.mark.parametrize(
    ("seconds", "text"),
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
def test_a_duration_is_given_in_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_many_names_are_cut() -> None:
    assert one_of(["a"]) == "'a'"
    assert one_of("abc") == "'a', 'b' or 'c'"
    assert one_of("abcdefgh") == "'a', 'b', 'c', 'd', 'e', 'f', 'g' or 'h'"
    assert one_of("abcdefghijkl") == "'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h' or one of 4 others"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("adm", "Adam"),
        ("ADAM", "Adam"),
        ("Nadma", "NAdam"),
        ("Adam", ""),
        ("Adagrad", ""),
        ("Lion", ""),
        (5, ""),
        (None, ""),
        ("", ""),
    ],
)
def test_a_name_is_suggested_only_if_it_is_near(name: object, nearest: str) -> None:
    assert did_you_mean(name, ["SGD", "Adam", "NAdam"]) == (f": did you mean {nearest!r}?" if nearest else "")
