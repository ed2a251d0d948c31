"""The one exception that is told to the user instead of traced, and how to say how many."""


class UserError(Exception):
    """A mistake that the user can fix: one line per fault, each saying what is wrong, where, and what is accepted."""


def counted(number: int, noun: str) -> str:
    """Return, for instance, `1 feature` or `2 features`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
