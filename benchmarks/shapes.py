"""Tables of many shapes, several networks and a single core: compiled steps beside JAX."""

import math
import os
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import process
from benchmarks.peers import Work
from benchmarks.report import Quantities, Section, duration, interleaved, table
from benchmarks.training import EPOCHS, LESSON, NAMES, TABLE, new_peer, seconds_per_epoch, warm_up, write_points

PEERS = ["compiled", "jax_epoch"]
ROWS = 9_000
CASES = [
    *(TABLE._replace(widths=widths, batch_size=size)
      for widths in [(8, 50, 1), (13, 50, 1), (30, 100, 1), (90, 100, 1), (20, 200, 5)]
      for size in (32, 128, 512)),
    *(TABLE._replace(optimizer=optimizer) for optimizer in ("SGD", "Adam")),
    *(TABLE._replace(networks=10, batch_size=size) for size in (32, 128)),
    LESSON._replace(networks=10),
    LESSON._replace(networks=100),
]  # fmt: skip
ONE_CORE = [TABLE, TABLE._replace(batch_size=128), TABLE._replace(widths=(90, 100, 1), batch_size=512)]
REPEATS = 2

TEXT = f"""\
A step, measured as an epoch is under *Training*, of {ROWS:,} rows like a table's, or of the lesson's 100 points.
Several networks are `train.networks`; JAX maps its epoch over them with `vmap`. Each has its own order of batches."""


def measure(name: str, work: list[Any], folder: str, cores: int) -> Quantities:
    """Return the time of an epoch on that many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    warm_up(name, Work(*work))
    peer = new_peer(name, Work(*work), folder)
    peer.fit(EPOCHS)
    return {"seconds": seconds_per_epoch(peer)}


def compared(work: Work, cores: int) -> list[str]:
    """Return a row of the table."""
    points = 100 if work.widths[0] == 1 else ROWS
    with TemporaryDirectory() as folder:
        process.call(write_points, folder=folder, count=points, widths=work.widths)
        arguments = {"work": work, "folder": folder, "cores": cores}
        calls = {name: partial(process.call, measure, name=name, **arguments) for name in PEERS}
        results = interleaved(f"{work}, {cores} cores", REPEATS, calls)
    steps = math.ceil(points / (work.batch_size or points))
    ours, theirs = (result["seconds"] / steps for result in results.values())
    batch = f"{work.batch_size}" if work.batch_size else "all"
    described = [f"{'-'.join(map(str, work.widths))}, {work.optimizer}", batch, str(work.networks), str(cores)]
    return [*described, duration(ours), duration(ours / work.networks), duration(theirs), f"{theirs / ours:.2f}"]


def run() -> Section:
    """Measure and report."""
    cores = len(os.sched_getaffinity(0))
    rows = [compared(work, cores) for work in CASES] + [compared(work, 1) for work in ONE_CORE]
    ratios = [float(row[-1]) for row in rows]
    compiled, jax = (NAMES[name] for name in PEERS)
    headline = (
        f"Tables and several networks: {jax} takes × {min(ratios):.2f} to × {max(ratios):.2f} the time of {compiled}."
    )
    head = ["", "batch", "networks", "cores", compiled, "a network", jax, f"{jax} / {compiled}"]
    return Section("Tables and networks", [headline], f"{TEXT}\n\n{table(head, rows)}")
