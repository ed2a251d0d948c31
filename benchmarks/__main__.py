"""Measure this project beside its peers: `python -m benchmarks` writes benchmarks/RESULTS.md, `--quick` only prints."""

import argparse
import sys
import time

from benchmarks import growth, pipeline, plots, ranks, report, shapes, training
from benchmarks.idle import require_idle
from benchmarks.process import PROJECT


def main() -> None:
    """Run all sections; print them, and write them unless in a hurry."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure this project beside its peers.")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and peers, no repeats, nothing written")
    parser.add_argument("--busy", action="store_true", help="run although other processes are busy")
    arguments = parser.parse_args()
    quick = arguments.quick
    if not arguments.busy:
        require_idle()

    origin, start = report.origin(), time.monotonic()  # at the start: the working tree may change meanwhile
    long = [] if quick else [shapes.run(), growth.run(), ranks.run()]
    sections = [training.run(quick), *long, plots.run(quick), pipeline.run(quick)]
    command = "make bench QUICK=1" if quick else "make bench"
    text = report.render(sections, command, origin, time.monotonic() - start)
    sys.stdout.write(text)
    if not quick:
        (PROJECT / "benchmarks/RESULTS.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
