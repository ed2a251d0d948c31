"""Several networks side by side beside one, here and by JAX's vmap."""

import argparse
import math
import sys
from functools import partial
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import process
from benchmarks.peers import Work
from benchmarks.report import Quantities, Section, duration, interleaved, table
from benchmarks.training import EPOCHS, LESSON, NAMES, TABLE, new_peer, seconds_per_epoch, warm_up, write_points

NETWORKS = (1, 10, 20)
PEERS = ["native", "compiled", "jax_epoch"]
CASES = [(100, LESSON), (1_000, TABLE), (1_000, TABLE._replace(batch_size=128))]
REPEATS = 3

TEXT = f"""\
A step of {", ".join(map(str, NETWORKS[:-1]))} and {NETWORKS[-1]} networks, measured as an epoch is under *Training*.
Here they are `train.networks`; JAX maps its epoch over them with `vmap`. Each network has its own order of batches;
none holds points back. *× one* is the time beside that of one network by the same library."""


def measure(name: str, work: list[Any], folder: str) -> Quantities:
    """Return the time of an epoch."""
    warm_up(name, Work(*work))
    peer = new_peer(name, Work(*work), folder)
    peer.fit(EPOCHS)
    return {"seconds": seconds_per_epoch(peer)}


def describe(points: int, work: Work, repeats: int, networks: tuple[int, ...]) -> tuple[str, float]:
    """Return a case's title and table, and how many times one network's step that of the most networks takes here."""
    with TemporaryDirectory() as folder:
        write_points(folder, points, work.widths[0])
        calls = {
            f"{name} {count}": partial(
                process.call, measure, name=name, work=work._replace(networks=count), folder=folder
            )
            for name in PEERS
            for count in networks
        }
        results = interleaved("networks", repeats, calls)
    steps = math.ceil(points / (work.batch_size or points))
    seconds = {name: result["seconds"] / steps for name, result in results.items()}
    rows = [
        [NAMES[name], str(count), duration(own := seconds[f"{name} {count}"]), f"{own / seconds[f'{name} 1']:.2f}"]
        for name in PEERS
        for count in networks
    ]
    batches = f"batches of {work.batch_size}" if work.batch_size else "full batch"
    title = f"{points:,} points, {'-'.join(map(str, work.widths))}, {work.optimizer}, {batches}"
    text = f"### {title}\n\n{table(['', 'networks', 'a step', '× one'], rows)}"
    return text, seconds[f"native {networks[-1]}"] / seconds["native 1"]


def run(repeats: int = REPEATS, networks: tuple[int, ...] = NETWORKS) -> Section:
    """Measure and report."""
    cases = [describe(points, work, repeats, networks) for points, work in CASES]
    least, most = (choose(ratio for _, ratio in cases) for choose in (min, max))
    headline = f"A step of {networks[-1]} networks takes {least:.1f} to {most:.1f} times as long as one network's."
    return Section("Networks", [headline], "\n\n".join([TEXT, *(text for text, _ in cases)]))


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description="Measure several networks.")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="of each measurement")
    section = run(parser.parse_args().repeats)
    sys.stdout.write("\n\n".join([*section.headlines, section.text, ""]))


if __name__ == "__main__":
    import_module("benchmarks.networks").main()  # under the name by which other processes find it
