"""The one exception that is told to the user instead of traced."""


class UserError(Exception):
    """A mistake that the user can fix: one line per fault, each saying what is wrong, where, and what is accepted."""
