"""The checkpoint that an interrupted training resumes from, and that a finished one leaves for more epochs later.

It is in .checkpoint/, which both git and DVC ignore. Only a training with the same fingerprint uses it: one that would
have reached the same state, bit for bit. The fingerprint leaves out the number of epochs.

The file holds a digest, then the bytes that torch.save wrote.
"""

import copy
import hashlib
import io
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from stages.runtime import files
from stages.runtime.errors import UserError
from stages.train.ranks import Ranks

PATH = ".checkpoint/train"
FINISHED = ".checkpoint/finished"
FINISHED_BYTES = 1 << 30  # a larger one is not kept: every later training would read it, usually for nothing
DIGEST_BYTES = hashlib.blake2b().digest_size
INTERVAL = 5.0  # seconds from one checkpoint to the next, at least
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Checkpoint:
    """Saves the state of a training in a file, and restores it.

    The state is that of the parts of the training: objects with state_dict() and load_state_dict(), by name. One of
    them is the network, `net`.
    """

    def __init__(self, fingerprint: dict[str, str], epochs: int, ranks: Ranks) -> None:
        self.fingerprint, self.epochs, self.ranks = fingerprint, epochs, ranks
        self.stopped = False
        self.due = time.monotonic() + INTERVAL
        self.warned = False

    @contextmanager
    def on_stop(self) -> Iterator[None]:
        """In the block, only note Ctrl-C, SIGTERM and SIGHUP; the next `save_if_due` saves and ends the training."""

        def stop(*_: object) -> None:
            self.stopped = True

        # Those that are ignored stay so: nohup has SIGHUP ignored.
        signals = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        former = {number: signal.signal(number, stop) for number in signals}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def save_if_due(self, position: tuple[int, int], parts: dict[str, Any], *, ended: bool = False) -> None:
        """Save the state if a checkpoint is due; if the user asked to stop, save it and raise UserError.

        `position` is the number of epochs that have ended, and of steps taken since. `ended` says that the last epoch
        has: then a checkpoint is always due, and a failure to save it is ignored.
        Only rank 0 saves, for all ranks; the other ranks tell it that they were asked to stop.
        """
        if self.ranks.rank > 0:
            if self.stopped:
                self.ranks.ask_to_stop()
            return
        self.stopped = self.stopped or self.ranks.asked_to_stop()
        if not (self.stopped or ended or time.monotonic() > self.due):
            return
        began, failure = time.monotonic(), None
        state = {"fingerprint": self.fingerprint, "epochs": self.epochs, "position": position}
        state |= {name: part.state_dict() for name, part in parts.items()}
        try:
            write(PATH, state, durable=not ended)
        except UserError as error:
            failure = error
        now = time.monotonic()
        self.due = now + max(INTERVAL, 20 * (now - began))  # large states less often: at most 5% of the time
        if self.stopped:
            resumes = f"without a checkpoint: {failure}" if failure else "`dvc repro` resumes from there"
            raise UserError(f"stopped at epoch {position[0]} of {self.epochs}; {resumes}")
        if failure and not (self.warned or ended):
            self._print(f"Training continues without a checkpoint: {failure}")
            self.warned = True

    def restore(self, parts: dict[str, Any]) -> None:
        """Restore the state of an interrupted training if it fits this one, else that of a finished one, if it fits.

        Print which one is used, and why the state of an interrupted training does not fit.
        """
        if not self._restored(PATH, parts):
            self._restored(FINISHED, parts)

    def _restored(self, path: str, parts: dict[str, Any]) -> bool:
        body = self.ranks.broadcast(self._fitting(path) if self.ranks.rank == 0 else b"")
        if not body:
            return False
        initial = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        try:
            state = unpacked(body)
            if not all(values.isfinite().all() for values in state["net"].values()):
                raise ValueError("weights must be finite")
            for name, part in parts.items():
                part.load_state_dict(state[name])
        except Exception:  # a state that is not ours can raise anything
            for name, part in parts.items():
                part.load_state_dict(initial[name])
            self._refuse(path, "is damaged")
            return False
        epoch, epochs = state["position"][0], state["epochs"]
        self._print(
            f"Resuming from the checkpoint {PATH}, at epoch {epoch} of {self.epochs}"
            if path == PATH
            else f"Continuing from epoch {epoch} of the finished training, which had train.epochs: {epochs}"
        )
        return True

    def _fitting(self, path: str) -> bytes:
        """Return the saved state, or nothing if there is none that fits this training."""
        try:
            body = read(path)
            state = unpacked(body)
            saved, epochs, position = state["fingerprint"], state["epochs"], tuple(state["position"])
            different = [name for name, value in self.fingerprint.items() if saved.get(name) != value]
            # A finished one is used only for more epochs: with as many, `dvc repro --force` is to compute again.
            if position > (self.epochs, 0) or (path == FINISHED and epochs >= self.epochs):
                different.append("train.epochs")
        except FileNotFoundError:
            return b""
        except OSError as error:
            return self._refuse(path, f"cannot be read: {error.strerror}")
        except Exception:  # the digest is wrong, or it is right, but the content is not ours
            return self._refuse(path, "is damaged")
        if different:
            return self._refuse(path, f"belongs to a run with different {', '.join(different)}; it is replaced")
        return body

    def _refuse(self, path: str, why: str) -> bytes:
        if path == PATH:  # a finished one that does not fit is the usual case
            self._print(f"Not resuming: the checkpoint {PATH} {why}")
        return b""

    def _print(self, line: str) -> None:
        if self.ranks.rank == 0:
            tqdm.write(line, file=sys.stderr)


def write(path: str, state: dict[str, Any], *, durable: bool) -> None:
    """Write the state: plain values and tensors. Raises UserError if the system refuses."""
    body = io.BytesIO()
    torch.save(state, body)
    with files.writing(path, durable=durable) as file:
        file.write(hashlib.blake2b(body.getbuffer()).digest())
        file.write(body.getbuffer())


def read(path: str) -> bytes:
    """Return the state as bytes, for `unpacked`. Raises OSError if they cannot be read, ValueError if damaged."""
    files.regular(path)
    content = Path(path).read_bytes()
    digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.blake2b(body).digest() != digest:
        raise ValueError
    return body


def unpacked(body: bytes) -> dict[str, Any]:
    """Return the state, its tensors on the CPU. Raises whatever torch raises if the bytes do not hold one."""
    return torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)


def finish() -> None:
    """Keep the state of the training that has ended, to train more epochs later; delete it if it is too large.

    If the system refuses, print that and leave the file where it is.
    """
    path = Path(PATH)
    if not path.is_file():  # it could not be written
        return
    try:
        if path.stat().st_size <= FINISHED_BYTES:
            path.replace(FINISHED)
        else:
            path.unlink()
    except OSError as error:
        tqdm.write(f"The checkpoint {PATH} cannot be moved: {error.strerror}", file=sys.stderr)
