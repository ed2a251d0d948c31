"""Compile in a process of its own: it takes 400 MB, and prints what nobody needs to read."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import torch

from stages.runtime import files
from stages.runtime.errors import UserError, one_line, printable
from stages.train.compiled.recipe import Recipe
from stages.train.compiled.sources import Module
from stages.train.progress import compiling


def compiled(recipe: Recipe, modules: list[Module], folder: str) -> bytes:
    """Return the shared library that the recipe is compiled to; `folder` is an empty one to work in.

    `modules` are those that the network needs. Raises UserError if one of them has changed since it was imported, or
    if the recipe cannot be compiled.
    """
    paths, expected = [module.path for module in modules], [module.digest for module in modules]
    Path(folder, "recipe").write_bytes(pickle.dumps((pickle.dumps(recipe), torch.get_num_threads(), paths, expected)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TORCHINDUCTOR_CACHE_DIR": folder}
    process = subprocess.Popen(  # noqa: S603 - this module
        [sys.executable, "-c", f"from {__name__} import main; main({folder!r})"],
        env=environment,
        stdin=subprocess.PIPE,  # open as long as this process lives
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        with compiling() as refresh:
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                refresh()
    finally:
        if process.poll() != 0:
            process.kill()
            _kill_group(process.pid)
        process.communicate()
    fault, compiled_from = "the compiling process was killed", _digests(paths)
    with suppress(FileNotFoundError):
        fault, compiled_from = json.loads(Path(folder, "result").read_text(encoding="utf-8"))
    changed = [path for path, was, now in zip(paths, expected, compiled_from, strict=True) if was != now]
    if changed:
        again = "changed while the stage ran: run `dvc repro` again"
        raise UserError("\n".join(f"{os.path.relpath(path)}: {again}" for path in changed))
    if fault:
        what = f"this network with {recipe.optimizer} and its options"
        raise UserError(f"params.yaml: train.steps: compiled cannot train {what}: {fault}: use eager")
    return Path(folder, "library").read_bytes()


def main(folder: str) -> None:
    """Compile what is in the file `recipe` of the folder; write the files `library` and `result`."""
    threading.Thread(target=_end_with_the_parent, args=[folder], daemon=True).start()
    pickled, threads, paths, expected = pickle.loads(Path(folder, "recipe").read_bytes())  # noqa: S301 - our parent's
    fault = ""
    try:
        recipe = pickle.loads(pickled)  # noqa: S301 - the same; it imports the network
        if _digests(paths) == expected:
            from stages.train.compiled.inductor import compile_loop

            shutil.copyfile(compile_loop(recipe, threads, folder), Path(folder, "library"))
    except Exception as error:  # whatever torch's compiler and the C++ compiler stumble over
        fault = cause(error)
    result = json.dumps([fault, _digests(paths)])  # once all is imported
    with files.writing(str(Path(folder, "result"))) as file:
        file.write(result.encode())


def _digests(paths: list[str]) -> list[str]:
    """Return the digests of the files as they are now, empty where they cannot be read."""
    digests = []
    for path in paths:
        try:
            digests.append(files.digest(path))
        except OSError:
            digests.append("")
    return digests


def cause(error: Exception) -> str:
    """Return what went wrong, in one line: of a C++ compiler's output, its first error."""
    lines = str(error).splitlines()
    return printable(one_line(next((line for line in lines if "error: " in line), error)))


def _end_with_the_parent(folder: str) -> None:
    """Wait until the parent has ended, even if it was killed; then end this process and those that it has started."""
    sys.stdin.buffer.read()
    shutil.rmtree(folder, ignore_errors=True)
    _kill_group(os.getpid())
    os._exit(1)


def _kill_group(leader: int) -> None:
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):  # PermissionError: on macOS, all have ended
            os.killpg(leader, signal.SIGKILL)
