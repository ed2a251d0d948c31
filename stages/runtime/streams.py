"""Make the standard streams safe to write to, even if they are closed or nobody reads them."""

import io
import os
import sys
from typing import Any


class _Stderr(io.FileIO):
    """Standard error that drops what cannot be written: the pipe is broken, or the terminal closed."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def make_safe() -> None:
    """Open closed standard streams on the null device, and make stderr drop what cannot be written."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would take its number, and receive our messages
            os.open(os.devnull, os.O_RDWR)
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    stream = io.BufferedWriter(_Stderr(2, "w", closefd=False))
    sys.stderr = io.TextIOWrapper(stream, encoding, errors="backslashreplace", line_buffering=True)
