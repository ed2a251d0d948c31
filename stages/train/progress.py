"""Between steps, a few times a second: show progress, check the losses, save a checkpoint."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from stages.runtime.progress import showing
from stages.train.checkpoint import Checkpoint
from stages.train.record import Record

INTERVAL = 0.2  # seconds


@contextmanager
def progress(record: Record, checkpoint: Checkpoint, parts: dict[str, Any]) -> Iterator[Callable[[], None]]:
    """Yield a function to call after each step; it acts only every INTERVAL seconds, or if the user asked to stop.

    Rank 0 shows how far the training has got. `parts` is what a checkpoint holds. A checkpoint is always saved at the
    end of the block, after the last epoch.
    Raises UserError, in the block or at its end, if a loss is not finite, or if the user asked to stop.
    """
    hidden = checkpoint.ranks.rank > 0
    with checkpoint.on_stop(), showing(record.epochs, "epoch", done=record.epoch, hidden=hidden) as advance:
        shown, due = record.epoch, time.monotonic() + INTERVAL

        def show_and_save(*, ended: bool = False) -> None:
            nonlocal shown, due
            record.settle()
            latest = [f"step {record.steps}"] if record.steps > 1 else []
            latest += [f"{name}={value:.4g}" for name, value in record.latest.items()]
            advance(record.epoch - shown, ", ".join(latest))
            shown = record.epoch
            checkpoint.save_if_due(record.position, parts, ended=ended)
            due = time.monotonic() + INTERVAL

        def after_step() -> None:
            if checkpoint.stopped or time.monotonic() > due:
                show_and_save()

        yield after_step
        show_and_save(ended=True)
