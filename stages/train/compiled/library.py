"""The shared libraries that trainings were compiled to, kept from run to run in the user's cache folder.

The name of a file is KEY.COMPILER.DIGEST.so: the digest of its bytes shows whether it is whole.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs
import torch
from torch import Tensor
from tqdm import tqdm

from stages.runtime import files
from stages.runtime.errors import UserError
from stages.train.compiled.process import compiled
from stages.train.compiled.recipe import Recipe
from stages.train.compiled.sources import modules_of
from stages.train.compiled.trust import only_the_user_writes

FOLDER = platformdirs.user_cache_path("reproducible-training")
KEPT = 50  # libraries, those used last, of 1.6 MB each
COMPILERS = {"darwin": "clang++", "win32": "cl"}  # and g++ elsewhere
PACKAGES = "the package g++ (Debian, Ubuntu), gcc-c++ (Fedora) or the command line tools of Xcode (macOS)"


@dataclass
class Library:
    """A compiled loop."""

    run: Callable[[list[Tensor]], object]  # the loop of loop.py, with its arguments in a list
    made_from: str = ""  # digests of the recipe and of the compiler
    path: Path | None = None  # of the file that is kept
    is_new: bool = True

    def discard(self) -> None:
        """Delete the file, so that the next training compiles again."""
        if self.path:
            with suppress(OSError):
                self.path.unlink()


def load(recipe: Recipe) -> Library:
    """Return the recipe's loop; compile it unless it is kept.

    Without a C++ compiler, a kept library is used, whichever compiler made it. Raises UserError if there is none, or if
    the training cannot be compiled.
    """
    modules = modules_of(recipe.net)
    key, compiler = recipe.key(modules), _compiler_digest()
    usable, why_not = _usable(FOLDER)
    if usable:
        for path in sorted(FOLDER.glob(f"{key}.{compiler or '*'}.*.so")):
            with suppress(OSError, RuntimeError):  # another training has just deleted it; it does not load here
                if library := _whole(path):
                    return library
    if not compiler:
        needs = f"needs the C++ compiler {_compiler()}: install {PACKAGES}, or use eager"
        raise UserError(f"params.yaml: train.steps: compiled {needs}")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows cannot delete a library that is loaded
        content, made_from = compiled(recipe, modules, folder), f"{key}.{compiler}"
        if usable:
            try:
                path = _keep(FOLDER, made_from, content)
                return Library(_loaded(path), made_from, path)
            except UserError as error:
                why_not = str(error)
        tqdm.write(f"The compiled library is used only once: {why_not}", sys.stderr)
        return Library(_loaded(Path(folder, "library")), made_from)


def _whole(path: Path) -> Library | None:
    """Return the library in a file if the file is complete and only this user can have written it."""
    made_from, digest = path.stem.rsplit(".", 1)
    if not only_the_user_writes(path) or digest != _digest(path.read_bytes()):
        return None
    library = Library(_loaded(path), made_from, path, is_new=False)
    with suppress(OSError):  # of a read-only folder
        os.utime(path)
    return library


def _usable(folder: Path) -> tuple[bool, str]:
    """Return whether libraries may be loaded from the folder, which is created if missing, and if not, why."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if only_the_user_writes(folder):
            return True, ""
    except OSError as error:
        return False, f"{folder}: cannot be used: {error.strerror}"
    return False, f"{folder}: others can write there: make it and its parent folders writable only by you"


def _keep(folder: Path, made_from: str, content: bytes) -> Path:
    """Write a new library in place of others with its key; delete old ones. Raises UserError if the system refuses."""
    path = folder / f"{made_from}.{_digest(content)}.so"
    with files.writing(str(path)) as file:
        file.write(content)
    with suppress(FileNotFoundError):  # another training deletes old ones, too
        path.chmod(0o600)
        for other in set(folder.glob(f"{made_from.partition('.')[0]}.*")) - {path}:
            other.unlink()
        for old in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return path


def _loaded(path: Path) -> Callable[[list[Tensor]], object]:
    return torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _compiler() -> str:
    return os.environ.get("CXX") or COMPILERS.get(sys.platform, "g++")


def _compiler_digest() -> str:
    """Return a digest of the C++ compiler's path and version, empty if there is none."""
    path = shutil.which(_compiler())
    if not path:
        return ""
    try:
        version = subprocess.run([path, "--version"], capture_output=True, check=False).stdout  # noqa: S603 - the user's
    except OSError:  # compiling says what is wrong
        version = b""
    return _digest(os.path.realpath(path).encode() + version)
