"""The one exception that is told to the user instead of traced."""


class UserError(Exception):
    """A mistake that the user can mend: one line a fault, each with what is wrong, where, and what is accepted."""
