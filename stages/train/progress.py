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
def progress(record: Record, checkpoint: Checkpoint, silent: bool, **state: Any) -> Iterator[Callable[[], None]]:
    """Yield what training is to call after each step; it acts where that is due, or the user asked to stop.

    The progress bar is shown in a terminal, unless silent. The state is what a checkpoint holds beside the record.
    """
    with checkpoint.on_stop(), tqdm(total=record.epochs, unit="epoch", disable=silent or None) as bar:
        bar.update(record.epoch)
        due = time.monotonic() + INTERVAL

        def show() -> None:
            record.settle()
            bar.set_postfix_str(f"loss={record.latest:.4f}", refresh=False)
            bar.update(min(record.epoch, record.epochs) - bar.n)

        def after_step() -> None:
            nonlocal due
            if checkpoint.stopped or time.monotonic() > due:
                show()
                checkpoint.save_if_due(f"epoch {record.epoch} of {record.epochs}", record=record, **state)
                due = time.monotonic() + INTERVAL

        yield after_step
        show()
