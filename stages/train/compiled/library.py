"""The shared libraries that trainings were compiled to, kept from run to run in the user's cache folder.

The name of a file is KEY.COMPILER.DIGEST.so. KEY is a digest of the code and the machine, COMPILER one of the compiler;
DIGEST, that of the file's bytes, shows whether it is whole.
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import platformdirs
from tqdm import tqdm

from stages.runtime import files
from stages.runtime.errors import UserError, one_line, printable
from stages.train.checkpoint import processor_model
from stages.train.compiled.trust import only_the_user_writes
from stages.train.steps import NotCompiledError


def _cache_folder() -> Path:
    """Return where libraries are kept; without a home folder a path that is not absolute, which is not used."""
    try:
        return platformdirs.user_cache_path("reproducible-training")
    except RuntimeError:
        return Path("~")


FOLDER = _cache_folder()
KEPT = 50  # libraries at most, those used last
LOOP = Path(__file__).with_name("loop.cpp")
FLAGS = ["-std=c++17", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"]
FLAGS += ["-fassociative-math", "-freciprocal-math"]
MUCH_CODE = 20_000  # characters, as of about 20 layers; the lesson has 4,000
PACKAGES = "the package g++ (Debian, Ubuntu), gcc-c++ (Fedora) or the command line tools of Xcode (macOS)"
# These tell the C++ compiler what to use.
VARIABLES = ["CPATH", "CPLUS_INCLUDE_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX", "LIBRARY_PATH"]


@dataclass
class Library:
    """A compiled training."""

    functions: ctypes.CDLL  # those of loop.cpp
    made_from: str  # KEY.COMPILER
    path: Path | None = None  # of the file that is kept
    is_new: bool = True

    def discard(self) -> None:
        """Delete the file, so that the next training compiles again."""
        if self.path:
            with suppress(OSError):
                self.path.unlink()


def load(header: str) -> Library:
    """Return the library of loop.cpp with this training.h; compile it unless it is kept.

    Without a C++ compiler, a kept library is used, whichever compiler made it. Raises NotCompiledError if there is
    none, or if compiling or loading fails.
    """
    machine = [processor_model(), platform.libc_ver(), _flags(header), *map(os.environ.get, VARIABLES)]
    key, compiler = _digest(repr([header, LOOP.read_text(encoding="utf-8"), machine]).encode()), _compiler_digest()
    why_not_kept = _why_not_usable(FOLDER)
    if not why_not_kept:
        for path in sorted(FOLDER.glob(f"{key}.{compiler or '*'}.*.so")):
            with suppress(OSError, AttributeError):  # another training has just deleted it; it does not load here
                if library := _load_kept(path):
                    return library
    if not compiler:
        raise NotCompiledError(f"need the C++ compiler {_compiler()[0]}", f"install {PACKAGES}, or use eager")
    content, made_from = _compiled(header), f"{key}.{compiler}"
    kept = None
    if not why_not_kept:
        try:
            kept = _keep(FOLDER, made_from, content)
        except UserError as error:
            why_not_kept = str(error)
    if why_not_kept:
        tqdm.write(f"The compiled library is not kept: {why_not_kept}", sys.stderr)
    try:
        return Library(_loaded(content), made_from, kept)
    except OSError as error:
        raise NotCompiledError(f"cannot be loaded: {one_line(error)}", "use eager") from error


def _compiled(header: str) -> bytes:
    """Return the library that the C++ compiler makes. Raises NotCompiledError if it fails."""
    command = [*_compiler(), *_flags(header)]
    try:
        with TemporaryDirectory() as folder:
            Path(folder, "training.h").write_text(header, encoding="utf-8")
            library = Path(folder, "library.so")
            command += ["-I", folder, "-o", str(library), str(LOOP)]
            done = subprocess.run(  # noqa: S603 - the user's compiler
                command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=os.environ | {"LC_ALL": "C"}
            )
            if done.returncode == 0 and library.exists():
                return library.read_bytes()
            fault = (
                _fault(done.stderr.decode(errors="replace")) or f"it ended with status {done.returncode} and no output"
            )
    except OSError as error:
        fault = str(error)
    raise NotCompiledError(f"need a C++ compiler that works: {command[0]}: {fault}", "fix this, or use eager")


def _flags(header: str) -> list[str]:
    """Return the compiler's options. Much code is compiled five times as fast, and runs a tenth slower."""
    how = ["-O2", "-ftree-vectorize"] if len(header) > MUCH_CODE else ["-O3"]
    x86 = platform.machine() in ("x86_64", "AMD64")
    return [*how, *FLAGS, *(["-march=native", "-mprefer-vector-width=512"] if x86 else ["-mcpu=native"])]


def _fault(output: str) -> str:
    """Return the first error in what a compiler has printed, in one line."""
    lines = output.splitlines()
    return printable(one_line(next((line for line in lines if "error: " in line), output)))


def _load_kept(path: Path) -> Library | None:
    """Return the library in a file if the file is complete and only this user can have written it."""
    made_from, digest = path.stem.rsplit(".", 1)
    content = path.read_bytes()
    if not only_the_user_writes(path) or digest != _digest(content):
        return None
    library = Library(_loaded(content), made_from, path, is_new=False)
    with suppress(OSError):  # of a read-only folder
        os.utime(path)
    return library


def _why_not_usable(folder: Path) -> str:
    """Return why no libraries may be loaded from the folder, which is created if missing; "" if they may."""
    if not folder.is_absolute():
        return "there is no home folder: set XDG_CACHE_HOME"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if only_the_user_writes(folder):
            return ""
    except OSError as error:
        return f"{folder}: cannot be used: {error.strerror}"
    return f"{folder}: others can write to it or to a folder above it: take that permission away"


def _keep(folder: Path, made_from: str, content: bytes) -> Path:
    """Write a new library in place of others with its key; delete old ones. Raises UserError if the system refuses."""
    path = folder / f"{made_from}.{_digest(content)}.so"
    with files.writing(str(path)) as file:
        file.write(content)
    with suppress(OSError):  # another training deletes old ones, too
        path.chmod(0o600)
        for other in set(folder.glob(f"{made_from.partition('.')[0]}.*")) - {path}:
            other.unlink()
        for old in sorted(folder.glob("*.so"), key=lambda file: file.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return path


def _loaded(content: bytes) -> ctypes.CDLL:
    """Load a library; on Linux from memory, so that it does not matter whether its folder is mounted noexec."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("library")  # stays open: another library must not get its name
        with open(memory, "wb", closefd=False) as file:
            file.write(content)
        functions = ctypes.CDLL(f"/proc/self/fd/{memory}")
    else:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # Windows cannot delete what is loaded
            path = Path(folder, "library.so")
            path.write_bytes(content)
            functions = ctypes.CDLL(str(path))
    int64, pointer, double = ctypes.c_int64, ctypes.c_void_p, ctypes.c_double
    functions.floats_of_work.restype = int64
    functions.gradient.argtypes = [pointer, pointer, int64, *[pointer] * 4]
    functions.step.argtypes = [double, pointer, pointer, int64, pointer]
    functions.take_steps.argtypes = [int64, int64, *[pointer] * 3, int64, *[pointer] * 5, int64, int64, int64]
    functions.take_steps.argtypes += [double, int64, pointer, int64]
    return functions


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _compiler() -> list[str]:
    """Return the command that CXX names, which may be a path with spaces, or a command with options."""
    named = os.environ.get("CXX", "").strip()
    if not named:
        return ["clang++" if sys.platform == "darwin" else "g++"]
    try:
        return [named] if shutil.which(named) else shlex.split(named)
    except ValueError:  # a quotation without an end
        return [named]


def _compiler_digest() -> str:
    """Return a digest of the C++ compiler's path, options and version, empty if there is none."""
    name, *options = _compiler()
    path = shutil.which(name)
    if not path:
        return ""
    try:
        version = subprocess.run([path, "--version"], capture_output=True, check=False).stdout  # noqa: S603 - the user's
    except OSError:  # compiling says what is wrong
        version = b""
    return _digest(repr([os.path.realpath(path), options, version]).encode())
