"""The standard streams, whoever listens."""

import io
import os
import sys
from typing import Any


class _Stderr(io.FileIO):
    """The standard error, which takes what is said where nobody listens any more: a broken pipe, a terminal closed."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def make_safe() -> None:
    """Make it safe to write to the standard streams where they are closed, or nobody listens any more."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed; else the next file that is opened would get what is said
            os.open(os.devnull, os.O_RDWR)
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    stream = io.BufferedWriter(_Stderr(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(stream, encoding, errors="backslashreplace", line_buffering=True)
