"""Write an output whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stages.errors import UserError


@contextmanager
def whole(path: str) -> Iterator[BinaryIO]:
    """Yield a file open for writing that takes the name path when the block ends, and vanishes where it fails.

    Its folder is made if need be. Raises UserError where the system refuses (no space, no permission, a folder there).
    """
    part = Path(f"{path}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
