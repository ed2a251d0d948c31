"""One process at a time runs a stage in a folder, also where DVC, which has a lock of its own, was killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where only DVC's own lock keeps two runs apart
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone(stage: str) -> Iterator[None]:
    """Keep other processes from running the stage in this folder. Raises UserError where one is running it already."""
    path = Path(".lock", stage)
    if fcntl is None:
        yield
        return
    try:
        path.parent.mkdir(exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}: fix this, then run `dvc repro`") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"the stage {stage} is already running, as process {file.read()}: wait for it to end, or stop it"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        yield
