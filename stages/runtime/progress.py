"""Show how far long work has got: a bar in a terminal; elsewhere, as in CI, a line every so often."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from stages.runtime.errors import counted, duration

BAR_AFTER = 1.0  # seconds, so that short work shows no bar
LINE_AFTER = 10.0  # seconds; then the time from one line to the next doubles,
LONGEST_GAP = 300.0  # seconds at most


@contextmanager
def showing(
    total: int | None,
    unit: str,
    *,
    done: int = 0,
    hidden: bool = False,
    seconds: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[..., None]]:
    """Yield a function to call with how many more are done and, optionally, what else to show.

    `total` is None if it is not known; `done` is what was done before, from which no time is estimated. `seconds` is
    the clock for lines.
    """
    began = seconds()
    before, gap, due = done, LINE_AFTER, began + LINE_AFTER
    in_terminal = sys.stderr.isatty() and not hidden
    with tqdm(
        total=total, initial=done, unit=unit, leave=False, delay=BAR_AFTER, dynamic_ncols=True, disable=not in_terminal
    ) as bar:

        def advance(count: int, also: str = "") -> None:
            nonlocal done, gap, due
            done += count
            now = seconds()
            if in_terminal:
                bar.set_postfix_str(also, refresh=False)
                bar.update(count)
            elif not hidden and now > due:
                parts = [counted(done, unit) if total is None else f"{unit} {done} of {total}", also]
                if total and before < done < total:
                    parts.append(f"{duration((now - began) * (total - done) / (done - before))} left")
                tqdm.write(", ".join(filter(None, parts)), file=sys.stderr)
                gap = min(2 * gap, LONGEST_GAP)
                due = now + gap

        yield advance
