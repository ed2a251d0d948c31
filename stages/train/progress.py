"""What training does between steps, a few times a second: show progress, look at the losses, save a checkpoint."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from stages.train.checkpoint import Checkpoint
from stages.train.record import Record

INTERVAL = 0.2  # seconds


@contextmanager
def progress(record: Record, checkpoint: Checkpoint, **state: Any) -> Iterator[Callable[[], None]]:
    """Yield what training is to call after each step; it acts where that is due, or the user asked to stop.

    The first rank shows a progress bar, in a terminal. The state is what a checkpoint holds beside the record.
    """
    hidden = checkpoint.ranks.rank > 0 or None  # None: where stderr is no terminal
    with checkpoint.on_stop(), tqdm(total=record.epochs, unit="epoch", disable=hidden) as bar:
        due = time.monotonic() + INTERVAL

        def look() -> None:
            nonlocal due
            record.settle()
            epoch = min(record.epoch, record.epochs)
            bar.set_postfix_str(f"loss={record.latest:.4f}", refresh=False)
            bar.update(epoch - bar.n)
            checkpoint.save_if_due(f"epoch {epoch} of {record.epochs}", record=record, **state)
            due = time.monotonic() + INTERVAL

        def after_step() -> None:
            if checkpoint.stopped or time.monotonic() > due:
                look()

        yield after_step
        look()
