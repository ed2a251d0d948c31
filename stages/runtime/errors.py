"""The one exception that is shown to the user without a traceback, and the words and values in its messages."""

import reprlib

SHOWN_ROWS = 3  # of those that have a fault


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
    return f"in row {shown}" if count == 1 else f"{'first ' * (count > SHOWN_ROWS)}in rows {shown}"


def printable(text: object) -> str:
    """Return the text in one line of at most 200 characters or so, with control characters escaped."""
    line = "".join(each if each.isprintable() else repr(each)[1:-1] for each in str(text))
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
