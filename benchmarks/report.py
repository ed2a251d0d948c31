"""What every section is made of: interleaved repeats, medians, units, tables; and the report as a whole."""

import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks import process
from benchmarks.idle import LOG
from benchmarks.process import NATIVE, PROJECT

PACKAGES = ["torch", "numpy", "dvc", "matplotlib", "pillow"]
PACKAGES += ["jax", "optax", "pytorch-lightning", "scikit-learn", "skorch"]
Quantities = dict[str, float]


class Section(NamedTuple):
    """A section of the report."""

    title: str
    headlines: list[str]  # for the summary, a sentence each
    text: str  # Markdown


def interleaved(what: str, repeats: int, measurements: Mapping[str, Callable[[], Quantities]]) -> dict[str, Quantities]:
    """Return the medians by name; the first of all measurements is taken before the second of any."""
    results: dict[str, list[Quantities]] = {name: [] for name in measurements}
    for repeat in range(repeats):
        for name, measure in measurements.items():
            sys.stderr.write(f"{what}: {name}, {repeat + 1} of {repeats}\n")
            results[name].append(LOG.measured(measure))
    return {name: {key: median(one[key] for one in some) for key in some[0]} for name, some in results.items()}


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it: `38.2 µs`."""
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    unit = next((unit for unit, size in units.items() if seconds >= size), "ns")
    return f"{seconds / units[unit]:.3g} {unit}"


def megabytes(count: float) -> str:
    """Return a number of bytes in MB, 10⁶ bytes."""
    return f"{count / 1e6:,.0f} MB"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table, its first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def accelerator() -> str:
    """Return the name of the GPU that torch sees."""
    import torch  # in the process that is asked, not in the one that reports

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def machine() -> str:
    """Return a Markdown list of the machine and what is installed on it."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"""\
- CPU: {model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores
- Memory: {memory:.0f} GiB
- GPU: {process.call(accelerator)}
- System: {platform.freedesktop_os_release()["PRETTY_NAME"]}, {platform.machine()}
- Python {platform.python_version()}
- {", ".join(f"{name} {version(name)}" for name in PACKAGES)}"""


def origin() -> str:
    """Return the date, UTC, and the commit that is measured, with a note of changes in the working tree."""

    def git(*command: str) -> str:
        return process.run(["git", *command], str(PROJECT), NATIVE).strip()

    changed = git("status", "--porcelain", "--", ":!benchmarks/RESULTS.md")  # which a run writes itself
    note = " with uncommitted changes" if changed else ""
    return f"on {datetime.now(timezone.utc).date()} (UTC), of commit {git('rev-parse', '--short', 'HEAD')}{note}"


def render(sections: list[Section], command: str, origin: str, seconds: float) -> str:
    """Return the report: what was measured, when and where, a summary, the sections."""
    summary = "\n".join(f"- {headline}" for section in sections for headline in section.headlines)
    texts = "\n\n".join(f"## {number}. {section.title}\n\n{section.text}" for number, section in enumerate(sections, 1))
    return f"""# Side by side

All of this is from one run of `{command}` {origin}. It took {seconds / 60:.1f} minutes, on one machine:

{machine()}

{LOG}

## Summary

{summary}

{texts}
"""
