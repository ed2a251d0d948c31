"""Read and write files so that what goes wrong is told in one line, and nothing half-written is left."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from stages.errors import UserError


class _File(io.BufferedWriter):
    """A file that remembers why a write failed, which torch.save does not tell."""

    failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def whole(path: str, *, durable: bool = False) -> Iterator[BinaryIO]:
    """Yield a file open for writing that takes the name path when the block ends, and vanishes where it fails.

    Its folder is made if need be. A durable file is on the disk, whatever happens next, once the block has ended.
    Raises UserError where the system refuses: no space, no permission, a folder of that name.
    """
    part = Path(f"{path}.part")
    file = None
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with _File(io.FileIO(part, "w")) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        failure = error if isinstance(error, OSError) else file and file.failure
        if not failure:
            raise
        raise UserError(f"{path}: cannot be written: {failure.strerror}: mend that, then `dvc repro`") from error
    finally:
        with suppress(OSError):  # a disk that cannot be written on has no part of it
            part.unlink()


@contextmanager
def reading(path: str, what: str) -> Iterator[None]:
    """Turn whatever reading a file raises in the block into a UserError that names the file and what to do."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing: run `dvc repro`") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}: mend that, then `dvc repro`") from error
    except Exception as error:  # readers tell a damaged file in many ways
        raise UserError(f"{path}: is not {what}, or is damaged: run `dvc repro`") from error
