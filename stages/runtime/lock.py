"""Let one process at a time run a stage in a folder, even if DVC, which has its own lock, was killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stages.runtime.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where only DVC's own lock keeps two runs apart
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone(stage: str) -> Iterator[None]:
    """Keep other processes from running the stage in this folder. Raises UserError if one is running it already."""
    if fcntl is None:
        yield
        return
    path = Path(".lock", stage)
    try:
        path.parent.mkdir(exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}: fix this, then run `dvc repro`") from error
    try:
        _lock(lock, stage)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, stage: str) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        process = os.read(lock, 20).decode(errors="replace")
        raise UserError(
            f"the stage {stage} is already running, as process {process}: wait for it to end, or stop it"
        ) from error
    with suppress(OSError):  # a full disk, of which the stage will tell
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
