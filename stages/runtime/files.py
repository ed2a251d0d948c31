"""Read and write files: whatever goes wrong becomes a one-line message, and no half-written file is left behind.

Files that are read are watched: `changed` returns those that are no longer as they were read.
"""

import errno
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from stages.runtime.errors import UserError

_watched: dict[str, tuple[tuple[int, ...], str]] = {}  # files that were read: their identity and digest then


class _File(io.BufferedWriter):
    """A file that remembers why a write failed, since torch.save does not say."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def writing(path: str, *, durable: bool = False, then: str = "run `dvc repro`") -> Iterator[BinaryIO]:
    """Yield a file to write to, which is renamed to `path` when the block ends and deleted if the block fails.

    Until then it has a name that no other writer uses. Its folder is created if missing. A durable file is on the disk
    once the block has ended, even if the machine crashes right after. `then` says what to do once a failure is fixed.
    Raises UserError if the system refuses: no space, no permission, a folder with that name.
    """
    part = Path(f"{path}.{secrets.token_hex(4)}.part")
    file = None
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with _File(io.FileIO(part, "x")) as file:  # x: never follows a link placed there
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except (OSError, RuntimeError) as error:
        failure = error if isinstance(error, OSError) else file and file.failure
        if not failure:
            raise
        raise UserError(f"{path}: cannot be written: {failure.strerror}: fix this, then {then}") from error
    finally:
        with suppress(OSError):  # already renamed, or never created
            part.unlink()


@contextmanager
def reading(path: str, what: str) -> Iterator[None]:
    """Turn whatever the block raises as it reads the file into a UserError that names the file and says what to do.

    `what` is what the file should be, for the message. MemoryError passes through.
    """
    try:
        regular(path)
        watch(path)
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing: run `dvc repro`") from error
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be read: {reason}: fix this, then run `dvc repro`") from error
    except Exception as error:  # a damaged file makes readers raise all kinds of errors
        if "can't allocate memory" in str(error):  # torch's MemoryError is a RuntimeError
            raise
        raise UserError(f"{path}: is not {what}, or is damaged: run `dvc repro`") from error


def regular(path: str) -> None:
    """Raise OSError if there is no file, or a pipe or a device, on which a reader would hang."""
    mode = Path(path).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a folder raises an error that says so
        raise OSError(errno.EINVAL, "Not a regular file")


def watch(*paths: str) -> None:
    """Note what is in files that are read now, for `changed`."""
    _watched.update((path, (_identity(path), digest(path))) for path in paths)


def changed() -> list[str]:
    """Return the paths of the watched files whose bytes have changed; `reading` and `watch` watch files."""
    return [path for path, (identity, content) in _watched.items() if _differs(path, identity, content)]


def digest_when_read(path: str) -> str:
    """Return the digest that a watched file had when it was read, and of any other file the one that it has now."""
    return _watched[path][1] if path in _watched else digest(path)


def digest(path: str) -> str:
    """Return a digest of a file's bytes, or of the names in a folder that are not hidden.

    Raises OSError where it cannot be read, or is neither.
    """
    regular(path)
    hashed = hashlib.blake2b()
    if Path(path).is_dir():
        names = sorted(entry.name for entry in Path(path).iterdir() if not entry.name.startswith("."))
        hashed.update(repr(names).encode())
        return hashed.hexdigest()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    return hashed.hexdigest()


def _differs(path: str, identity: tuple[int, ...], content: str) -> bool:
    try:
        return _identity(path) != identity and digest(path) != content
    except OSError:  # it was deleted, or can no longer be read
        return True


def _identity(path: str) -> tuple[int, ...]:
    status = Path(path).stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
