"""Whether only the user can write a file or a folder, which holds code that will be executed."""

import os
import stat
from pathlib import Path


def only_the_user_writes(path: Path) -> bool:
    """Return whether it belongs to the user, and nobody else but root can write it or put another in its place.

    Raises OSError if it cannot be examined.
    """
    if os.name == "nt":  # the user's cache folder is the user's alone
        return True
    path = path.resolve()
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    for parent in reversed(path.parents):  # from the root on
        status = parent.stat()
        others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.getuid()) or others_write:
            return False
        if not status.st_mode & (stat.S_IXGRP | stat.S_IXOTH):
            return True  # nobody else reaches what is below
    return True
