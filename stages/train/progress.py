"""Between steps, a few times a second: show progress, check the losses, save a checkpoint."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from stages.runtime.progress import showing
from stages.train.checkpoint import Checkpoint
from stages.train.record import Record

INTERVAL = 0.2  # seconds


@contextmanager
def progress(record: Record, checkpoint: Checkpoint, **state: Any) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each step; it acts only every INTERVAL seconds, or if the user asked to stop.

    Rank 0 shows how far the training has got. `state` is what a checkpoint holds besides the record. A checkpoint is
    always saved at the end of the block, after the last epoch.
    Raises UserError, in the block or at its end, if a loss is not finite, or if the user asked to stop.
    """
    hidden = checkpoint.ranks.rank > 0
    with checkpoint.on_stop(), showing(record.epochs, "epoch", done=record.epoch, hidden=hidden) as advance:
        epoch, due = record.epoch, time.monotonic() + INTERVAL

        def look(*, ended: bool = False) -> None:
            nonlocal epoch, due
            record.settle()
            latest = [f"step {record.steps}"] if record.steps > 1 else []
            latest += [f"{name}={value:.4g}" for name, value in record.latest.items()]
            advance(record.epoch - epoch, ", ".join(latest))
            epoch = record.epoch
            checkpoint.save_if_due(record.position, ended=ended, record=record, **state)
            due = time.monotonic() + INTERVAL

        def after_step() -> None:
            if checkpoint.stopped or time.monotonic() > due:
                look()

        yield after_step
        look(ended=True)


@contextmanager
def compiling() -> Iterator[Callable[[], None]]:
    """Show that the training is being compiled, in a terminal with the time so far; yield what updates the time."""
    with tqdm(desc="compiling…", bar_format="{desc} {elapsed}", leave=False, disable=None) as bar:
        if bar.disable:
            tqdm.write(
                "Compiling the training takes about twenty seconds; later ones like it need no compiling", sys.stderr
            )
        yield bar.refresh
