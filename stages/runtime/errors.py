"""The one exception that is shown to the user without a traceback, and the words and values in its messages."""

import difflib
import reprlib
from collections.abc import Iterable

SHOWN_ROWS = 3  # of those that have a fault
SHOWN_NAMES = 8  # of those that are accepted


class UserError(Exception):
    """A mistake that the user can fix: one line per fault, each saying what is wrong, where, and what is accepted."""


def one_line(error: object) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())


def counted(number: int, noun: str) -> str:
    """Return, for instance, `1 feature` or `2 features`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """Return, for instance, `2.3 s`, `42 s`, `3 min 29 s` or `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def in_rows(count: int, rows: list[int]) -> str:
    """Return where so many rows are, of which the first are given: `first in rows 4, 17, 23`."""
    shown = ", ".join(map(str, rows[:SHOWN_ROWS]))
    if count == 1:
        return f"in row {shown}"
    return f"first in rows {shown}" if count > SHOWN_ROWS else f"in rows {shown}"


def one_of(names: Iterable[str]) -> str:
    """Return, for instance, `'a', 'b' or 'c'`, or the first of many names and how many more there are."""
    *rest, last = map(repr, names)
    if len(rest) < SHOWN_NAMES:
        return f"{', '.join(rest)} or {last}" if rest else last
    return f"{', '.join(rest[:SHOWN_NAMES])} or one of {len(rest) + 1 - SHOWN_NAMES} others"


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Return `: did you mean 'Adam'?` for a name that is nearly one of those known, else nothing."""
    known = {accepted.lower(): accepted for accepted in names}
    text = name.lower() if isinstance(name, str) and name not in known.values() else ""
    nearest = difflib.get_close_matches(text, known, n=1, cutoff=0.75)
    return f": did you mean {known[nearest[0]]!r}?" if nearest else ""


def printable(text: object) -> str:
    """Return the text in one line of at most 200 characters or so, with control characters escaped."""
    line = "".join(character if character.isprintable() else repr(character)[1:-1] for character in str(text))
    return line if len(line) <= 200 else f"{line[:200]}..."


class _Shortener(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        if x.bit_length() <= 1000:
            return super().repr_int(x, level)
        digits = hex(x)  # Python refuses to convert numbers this long to decimal
        return f"{digits[:20]}...{digits[-20:]}"


def short(value: object) -> str:
    """Return what Python calls a value, shortened, as `printable` text."""
    shortener = _Shortener()
    shortener.maxlevel = 2
    return printable(shortener.repr(value))
