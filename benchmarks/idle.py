"""Measure how busy other processes are, and repeat the measurements that they disturb."""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import psutil

BUSY = 0.03  # share of the cores that other processes, or other virtual machines, may take
TRIES = 4  # of a measurement, if other processes are busy beside each


class Moment(NamedTuple):
    """Seconds of the cores until now."""

    passed: float  # times the number of cores
    worked: float
    ours: float  # this process, and those that it has waited for

    @classmethod
    def now(cls) -> "Moment":
        """Return those until this moment."""
        times = psutil.cpu_times()
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        worked = times.user + times.nice + times.system + times.irq + times.softirq + times.steal
        ours = sum(usage.ru_utime + usage.ru_stime for usage in usages)
        return cls(time.monotonic() * (psutil.cpu_count() or 1), worked, ours)

    def share_of_others(self) -> float:
        """Return the share of the cores that others have taken since then."""
        now = Moment.now()
        others = (now.worked - self.worked) - (now.ours - self.ours)
        return max(0.0, others / (now.passed - self.passed))


class Log:
    """How busy others were beside the measurements."""

    def __init__(self) -> None:
        self.shares: list[float] = []  # beside those that count
        self.repeated = 0

    def measured(self, measure: Callable[[], Any]) -> Any:
        """Return a measurement; while others are busy beside it, take it again, at most TRIES times in all."""
        for attempt in range(1, TRIES + 1):
            before = Moment.now()
            result = measure()
            share = before.share_of_others()
            if share <= BUSY or attempt == TRIES:
                self.shares.append(share)
                return result
            self.repeated += 1
            sys.stderr.write(f"others took {share:.0%} of the cores: measuring again\n")
        raise AssertionError

    def __str__(self) -> str:
        """Return it in a sentence."""
        busy = sum(share > BUSY for share in self.shares)
        mean = sum(self.shares) / max(1, len(self.shares))
        return f"""\
Beside {len(self.shares)} measurements, others (processes, and virtual machines on the same host) took {mean:.1%} of the
cores on average, and {max(self.shares, default=0):.1%} at most. {self.repeated} measurements were taken again, since
that was more than {BUSY:.0%}; {busy} of those that count are still above that."""


LOG = Log()


def require_idle(seconds: float = 3.0) -> None:
    """Exit with a line if other processes are busy now."""
    before = Moment.now()
    time.sleep(seconds)
    if (share := before.share_of_others()) > BUSY:
        sys.exit(f"other processes take {share:.0%} of the cores: wait until they have ended, or use --busy")
