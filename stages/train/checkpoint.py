"""The checkpoint that an interrupted training resumes from.

It is in .checkpoint/, which both git and DVC ignore, from a few seconds into a training until its outputs are written.
Only a training with the same fingerprint resumes from it: one that would have reached the same state, bit for bit.
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

from stages import files
from stages.errors import UserError
from stages.train.ranks import Ranks

PATH = ".checkpoint/train"
INTERVAL = 5.0  # seconds from one checkpoint to the next, at least
DIGEST_BYTES = hashlib.blake2b().digest_size
STOP_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Checkpoint:
    """Saves the state of a training in a file, and restores it: any objects with state_dict() and load_state_dict()."""

    def __init__(self, fingerprint: dict[str, str], ranks: Ranks) -> None:
        self.fingerprint, self.ranks = fingerprint, ranks
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

    def save_if_due(self, progress: str, **parts: Any) -> None:
        """Save the state if a checkpoint is due. Raises UserError once it is saved if the user asked to stop.

        Only rank 0 saves, for all ranks; the others pass on to it that they were asked to stop.
        """
        if self.ranks.rank > 0:
            if self.stopped:
                self.ranks.ask_to_stop()
            return
        self.stopped = self.stopped or self.ranks.asked_to_stop()
        if not (self.stopped or time.monotonic() > self.due):
            return
        began, failure = time.monotonic(), None
        try:
            self._save(progress, {name: part.state_dict() for name, part in parts.items()})
        except UserError as error:
            failure = error
        ended = time.monotonic()
        self.due = ended + max(INTERVAL, 20 * (ended - began))  # large states less often: at most 5% of the time
        if self.stopped:
            resumes = f"without a checkpoint: {failure}" if failure else "`dvc repro` resumes from there"
            raise UserError(f"stopped at {progress}; {resumes}")
        if failure and not self.warned:
            tqdm.write(f"Training continues without a checkpoint: {failure}", file=sys.stderr)
            self.warned = True

    def restore(self, **parts: Any) -> None:
        """Restore the saved state if it fits this training; print that, or why it does not."""
        body = self.ranks.broadcast(self._fitting() if self.ranks.rank == 0 else b"")
        if not body:
            return
        first = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        try:
            state = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)
            if not all(values.isfinite().all() for values in state["net"].values()):
                raise ValueError("weights must be finite")
            for name, part in parts.items():
                part.load_state_dict(state[name])
            progress = state["progress"]
        except Exception:  # whatever foreign content makes of them
            for name, part in parts.items():
                part.load_state_dict(first[name])
            _from_scratch("is damaged")
            return
        if self.ranks.rank == 0:
            tqdm.write(f"Resuming from the checkpoint {PATH}, at {progress}", file=sys.stderr)

    def _save(self, progress: str, state: dict[str, Any]) -> None:
        body = io.BytesIO()
        torch.save({"fingerprint": self.fingerprint, "progress": progress, **state}, body)
        with files.writing(PATH, durable=True) as file:
            file.write(hashlib.blake2b(body.getbuffer()).digest() + body.getbuffer())

    def _fitting(self) -> bytes:
        """Return the saved state, or nothing if there is none that fits this training."""
        try:
            files.regular(PATH)
            content = Path(PATH).read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            return _from_scratch(f"cannot be read: {error.strerror}")
        saved, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.blake2b(body).digest() != saved:
            return _from_scratch("is damaged")
        try:
            theirs = torch.load(io.BytesIO(body), map_location="cpu", weights_only=True)["fingerprint"]
            others = [name for name, value in self.fingerprint.items() if theirs.get(name) != value]
        except Exception:  # the digest is right, but the content is not ours
            return _from_scratch("is damaged")
        if others:
            return _from_scratch(f"belongs to a run with different {', '.join(others)}; it is replaced")
        return body


def remove() -> None:
    """Remove the saved state, if there is one; if the system refuses, print that and leave it."""
    try:
        Path(PATH).unlink(missing_ok=True)
    except OSError as error:
        tqdm.write(f"The checkpoint {PATH} cannot be removed: {error.strerror}", file=sys.stderr)


def _from_scratch(why: str) -> bytes:
    tqdm.write(f"Starting from scratch: the checkpoint {PATH} {why}", file=sys.stderr)
    return b""
