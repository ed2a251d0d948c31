"""Run those experiments of a sweep that are missing, several at a time, and read what all of them measured."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from queue import SimpleQueue
from typing import Any

from dvc.repo import Repo
from tqdm import tqdm

from stages.runtime.errors import UserError, counted, printable
from tools.sweep.plan import Run
from tools.sweep.slots import Slot, git


def run_missing(runs: Sequence[Run], slots: Sequence[Slot], metric: str) -> tuple[dict[str, float], int]:
    """Return the metric of each experiment that there is in the end, by its name, and how many runs failed.

    Print a line for each run as it is found, or as it ends. Raises UserError if there is no such metric, or on Ctrl-C.
    """
    results: dict[str, float] = {}
    ended = 0
    with tqdm(total=len(runs), unit="run", leave=False, disable=None) as bar:

        def tell(run: Run, outcome: str) -> None:
            nonlocal ended
            ended += 1
            tqdm.write(f"[{ended}/{len(runs)}] {run.label}: {outcome}")
            bar.update()

        revisions = finished()
        results |= measured({run.name: revisions[run.name] for run in runs if run.name in revisions}, metric)
        for run in runs:
            if run.name in results:
                tell(run, f"{metric} {results[run.name]:.6g} (found)")
        try:
            for run, failure, seconds in _run_each([run for run in runs if run.name not in results], slots):
                if failure:
                    tell(run, f"failed: {failure}")
                else:
                    results |= measured({run.name: finished()[run.name]}, metric)
                    tell(run, f"{metric} {results[run.name]:.6g} ({seconds:.1f} s)")
        except KeyboardInterrupt:
            done = f"interrupted with {len(results)} of {counted(len(runs), 'run')} done"
            raise UserError(f"{done}; the same command goes on from there") from None
    return results, len(runs) - len(results)


def finished() -> dict[str, str]:
    """Return the commit of each experiment that the project has, by its name."""
    lines = git("for-each-ref", "--format=%(refname) %(objectname)", "refs/exps/*/*/*").splitlines()
    return {line.partition(" ")[0].rpartition("/")[2]: line.partition(" ")[2] for line in lines}


def measured(revisions: Mapping[str, str], metric: str) -> dict[str, float]:
    """Return the metric of each experiment. Raises UserError if one has no such metric, or it is not a number."""
    found = {}
    with Repo() as repo:
        shown: dict[str, Any] = repo.metrics.show(revs=list(revisions.values())) if revisions else {}
    for name, revision in revisions.items():
        metrics = dict(_leaves({file: each.get("data") for file, each in shown[revision].get("data", {}).items()}))
        if metric not in metrics:
            raise UserError(f"--metric must be one of {', '.join(sorted(metrics))}, got {printable(metric)}")
        found[name] = metrics[metric]
    return found


def _leaves(files: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers in metrics files; the name of a nested one has dots."""
    waiting = [("", content) for content in files.values()]
    while waiting:
        prefix, content = waiting.pop()
        if isinstance(content, dict):
            waiting += [(f"{prefix}.{name}" if prefix else name, each) for name, each in content.items()]
        elif isinstance(content, int | float):
            yield prefix, float(content)


def _run_each(runs: Sequence[Run], slots: Sequence[Slot]) -> Iterator[tuple[Run, str | None, float]]:
    """Run each in a slot that is free; as each ends, yield it, why it failed if it did, and its seconds.

    If the caller is interrupted, interrupt those that run, and wait for them.
    """
    free: SimpleQueue[Slot] = SimpleQueue()
    for slot in slots:
        free.put(slot)

    def one(run: Run) -> tuple[Run, str | None, float]:
        slot, began = free.get(), time.monotonic()
        try:
            failure = slot.run(run)
            slot.collect()
            return run, failure, time.monotonic() - began
        finally:
            free.put(slot)

    with ThreadPoolExecutor(len(slots)) as pool:
        ends = [pool.submit(one, run) for run in runs]
        try:
            for end in as_completed(ends):
                yield end.result()
        finally:  # nothing is left to stop or cancel, or the sweep ends early
            pool.shutdown(wait=False, cancel_futures=True)
            for slot in slots:
                slot.stop()
