"""Let one process at a time run a stage in a folder, even if DVC, which has its own lock, was killed."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from stages.runtime.errors import UserError

NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}  # some mounts of Lustre, NFS and others


@contextmanager
def alone(stage: str) -> Iterator[None]:
    """Keep other processes from running the stage in this folder. Raises UserError if one is running it already.

    Where the file system has no locks, say so and go on.
    """
    path = Path(".lock", stage)
    lock = FileLock(path, blocking=False, on_acquired=_write_process)
    try:
        lock.acquire()
    except Timeout as error:
        process = ""
        with suppress(OSError):  # Windows lets nobody read a locked file
            process = f", as process {path.read_text(errors='replace')[:20]}"
        raise UserError(f"the stage {stage} is already running{process}: wait for it to end, or stop it") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            reason = f"cannot be written: {error.strerror}: fix this, then run `dvc repro`"
            raise UserError(f"{path}: {reason}") from error
        print(f"{path}: the file system has no locks: do not run {stage} twice at once here", file=sys.stderr)
    try:
        yield
    finally:
        lock.release()


def _write_process(descriptor: int) -> None:
    with suppress(OSError):  # a full disk, which the stage will report
        os.write(descriptor, str(os.getpid()).encode())
