"""The one exception that is shown to the user without a traceback, and counts in words for its messages."""


class UserError(Exception):
    """A mistake that the user can fix: one line per fault, each saying what is wrong, where, and what is accepted."""


def one_line(error: object) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split())


def counted(number: int, noun: str) -> str:
    """Return, for instance, `1 feature` or `2 features`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
