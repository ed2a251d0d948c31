"""The shared libraries that trainings were compiled to, kept from run to run in the user's cache folder."""

import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import platformdirs
import torch
from torch import Tensor, nn

from stages import network
from stages.runtime import files
from stages.runtime.errors import UserError, one_line, printable
from stages.train.checkpoint import processor_model
from stages.train.progress import compiling

FOLDER = platformdirs.user_cache_path("reproducible-training")
KEPT = 50  # libraries, those used last, of 1.6 MB each
COMPILERS = {"darwin": "clang++", "win32": "cl"}  # and g++ elsewhere
PACKAGES = "the package g++ (Debian, Ubuntu), gcc-c++ (Fedora) or the command line tools of Xcode (macOS)"


class Recipe(NamedTuple):
    """What is trained: all that the compiled loop depends on."""

    net: nn.Module
    loss_function: nn.Module
    optimizer: str
    options: dict[str, Any]  # of the optimizer, all but its learning rate
    state: dict[str, bool]  # what the optimizer keeps for each parameter: whether that is a scalar
    rows: int  # points in a micro-batch
    n_feature: int
    n_output: int

    def key(self) -> str:
        """Return a digest of the recipe and of what else decides what it is compiled to."""
        shapes = [(name, tuple(each.shape), each.requires_grad) for name, each in self.net.named_parameters()]
        written_in = [
            network.__file__,
            *(str(Path(__file__).with_name(f"{name}.py")) for name in ("inductor", "loop")),
        ]
        decisive = [repr(self), shapes, torch.__version__, torch.get_num_threads(), processor_model(), _compiler()]
        return hashlib.blake2b(repr([*decisive, *map(files.digest, written_in)]).encode(), digest_size=16).hexdigest()


def load(recipe: Recipe) -> Callable[[list[Tensor]], object]:
    """Return the recipe's loop, with the arguments of loop.py in a list; compile it unless it is kept.

    Raises UserError if there is no compiler, or if the training cannot be compiled.
    """
    path = FOLDER / f"{recipe.key()}.so"
    if not path.exists():
        if not shutil.which(_compiler()):
            needs = f"needs the C++ compiler {_compiler()}: install {PACKAGES}, or use native"
            raise UserError(f"params.yaml: kernels: compiled {needs}")
        with TemporaryDirectory() as work:
            made = Path(_compiled_in_a_process(recipe, work))
            with files.writing(str(path)) as file:
                file.write(made.read_bytes())
    loop = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1).run
    with suppress(FileNotFoundError):  # another training deletes old ones, too
        os.utime(path)
        for old in sorted(FOLDER.glob("*.so"), key=lambda each: each.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return loop


def _compiler() -> str:
    return os.environ.get("CXX") or COMPILERS.get(sys.platform, "g++")


def _compiled_in_a_process(recipe: Recipe, folder: str) -> str:
    """Compile in a process of its own: it takes 400 MB, and prints what nobody needs to read."""
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_process, args=(sender, recipe, torch.get_num_threads(), folder), daemon=True)
    process.start()
    sender.close()
    try:
        with compiling() as look:
            while not receiver.poll(0.2):
                look()
        made, fault = receiver.recv()
        process.join()
    except EOFError:
        made, fault = "", "the compiler was killed"
    finally:
        process.kill()
    if fault:
        what = f"this network with {recipe.optimizer} and its options"
        raise UserError(f"params.yaml: kernels: compiled cannot train {what}: {fault}: use native")
    return str(made)


def _process(sender: Connection, recipe: Recipe, threads: int, folder: str) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    try:
        from stages.train.compiled.inductor import compile_loop

        sender.send((compile_loop(recipe, threads, folder), ""))
    except Exception as error:  # whatever torch's compiler and the C++ compiler stumble over
        sender.send(("", printable(one_line(error))))
