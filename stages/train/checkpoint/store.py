"""The checkpoint that an interrupted training resumes from, and that a finished one leaves for more epochs later.

It is in .checkpoint/, which both git and DVC ignore. Only a training with the same fingerprint uses it: one that would
have reached the same state, bit for bit. The fingerprint leaves out the number of epochs.
"""

import copy
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.runtime.errors import UserError
from stages.train.checkpoint import state_file
from stages.train.ranks import Ranks

PATH = ".checkpoint/train"
FINISHED = ".checkpoint/finished"
FINISHED_BYTES = 1 << 30  # a larger one is not kept: every later training would read it, usually for nothing
INTERVAL = 5.0  # seconds from one checkpoint to the next, at least
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Checkpoint:
    """Saves the state of a training in a file, and restores it: any objects with state_dict() and load_state_dict()."""

    def __init__(self, fingerprint: dict[str, str], epochs: int, ranks: Ranks) -> None:
        self.fingerprint, self.epochs, self.ranks = fingerprint, epochs, ranks
        self.stopped = False
        self.due = time.monotonic() + INTERVAL
        self.warned = False

    @contextmanager
    def on_stop(self) -> Iterator[None]:
        """In the block, only note Ctrl-C, SIGTERM and SIGHUP; the next `save_if_due` saves and ends the training."""

        def note(*_: object) -> None:
            self.stopped = True

        # Those that are ignored stay so: nohup has SIGHUP ignored.
        heard = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        former = {number: signal.signal(number, note) for number in heard}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def save_if_due(self, position: tuple[int, int], *, ended: bool = False, **parts: Any) -> None:
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
            state_file.write(PATH, state, durable=not ended)
        except UserError as error:
            failure = error
        now = time.monotonic()
        self.due = now + max(INTERVAL, 20 * (now - began))  # large states less often: at most 5% of the time
        if self.stopped:
            resumes = f"without a checkpoint: {failure}" if failure else "`dvc repro` resumes from there"
            raise UserError(f"stopped at epoch {position[0]} of {self.epochs}; {resumes}")
        if failure and not (self.warned or ended):
            self._tell(f"Training continues without a checkpoint: {failure}")
            self.warned = True

    def restore(self, **parts: Any) -> None:
        """Restore the state of an interrupted training if it fits this one, else that of a finished one, if it fits.

        Print which one is used, and why the state of an interrupted training does not fit.
        """
        if not self._restored(PATH, parts):
            self._restored(FINISHED, parts)

    def _restored(self, path: str, parts: dict[str, Any]) -> bool:
        body = self.ranks.broadcast(self._fitting(path) if self.ranks.rank == 0 else b"")
        if not body:
            return False
        first = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        try:
            state = state_file.unpacked(body)
            if not all(values.isfinite().all() for values in state["net"].values()):
                raise ValueError("weights must be finite")
            for name, part in parts.items():
                part.load_state_dict(state[name])
        except Exception:  # a state that is not ours can raise anything
            for name, part in parts.items():
                part.load_state_dict(first[name])
            self._refuse(path, "is damaged")
            return False
        epoch, epochs = state["position"][0], state["epochs"]
        self._tell(
            f"Resuming from the checkpoint {PATH}, at epoch {epoch} of {self.epochs}"
            if path == PATH
            else f"Continuing from epoch {epoch} of the finished training, which had train.epochs: {epochs}"
        )
        return True

    def _fitting(self, path: str) -> bytes:
        """Return the saved state, or nothing if there is none that fits this training."""
        try:
            body = state_file.read(path)
            state = state_file.unpacked(body)
            theirs, epochs, position = state["fingerprint"], state["epochs"], tuple(state["position"])
            others = [name for name, value in self.fingerprint.items() if theirs.get(name) != value]
            # A finished one is used only for more epochs: with as many, `dvc repro --force` is to compute again.
            if position > (self.epochs, 0) or (path == FINISHED and epochs >= self.epochs):
                others.append("train.epochs")
        except FileNotFoundError:
            return b""
        except OSError as error:
            return self._refuse(path, f"cannot be read: {error.strerror}")
        except Exception:  # the digest is wrong, or it is right, but the content is not ours
            return self._refuse(path, "is damaged")
        if others:
            return self._refuse(path, f"belongs to a run with different {', '.join(others)}; it is replaced")
        return body

    def _refuse(self, path: str, why: str) -> bytes:
        if path == PATH:  # a finished one that does not fit is the usual case
            self._tell(f"Not resuming: the checkpoint {PATH} {why}")
        return b""

    def _tell(self, line: str) -> None:
        if self.ranks.rank == 0:
            tqdm.write(line, file=sys.stderr)


def finish() -> None:
    """Keep the state of the training that has ended, to train more epochs later; delete it if it is too large.

    If the system refuses, print that and leave the file where it is.
    """
    saved = Path(PATH)
    if not saved.is_file():  # it could not be written
        return
    try:
        if saved.stat().st_size <= FINISHED_BYTES:
            saved.replace(FINISHED)
        else:
            saved.unlink()
    except OSError as error:
        tqdm.write(f"The checkpoint {PATH} cannot be moved: {error.strerror}", file=sys.stderr)
