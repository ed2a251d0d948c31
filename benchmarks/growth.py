"""What a point costs, in time and memory, as the points grow from a thousand to a hundred million."""

from functools import partial
from tempfile import TemporaryDirectory

from benchmarks import peers, process
from benchmarks.report import Quantities, Section, duration, interleaved, megabytes, table
from benchmarks.training import EPOCHS, LESSON, NAMES, OURS, points, seconds_per_epoch, warm_up

HEAD = ["", "points", "an epoch", "a point", "data", "peak beyond the data", "at the end"]
TEXT = """\
This project, full batch, the points read from the file that `generate` writes. Memory is counted beyond what the
process holds once it has trained on one point, without the bytes of the data: its peak, and what is left at the end.
With few points the time of an epoch is that of calling the five steps.
"""


def write_dataset(path: str, count: int) -> None:
    """Write the lesson's points as the stage `generate` does."""
    import torch

    from stages import dataset

    x, y = map(torch.from_numpy, points(count))
    dataset.write(path, dataset.Dataset(x, y))


def measure(name: str, path: str) -> Quantities:
    """Return the time of an epoch, and the memory beyond the libraries and the data."""
    from stages import dataset

    warm_up(name, LESSON)
    peak, anonymous = process.memory("VmHWM"), process.memory("RssAnon")
    data = dataset.read(path)
    x, y = data.x.numpy(), data.y.numpy()
    peer = getattr(peers, name)(x, y, LESSON)
    peer.fit(EPOCHS)
    seconds = seconds_per_epoch(peer)
    bytes_of_data = x.nbytes + y.nbytes
    peak = process.memory("VmHWM") - peak - bytes_of_data
    end = process.memory("RssAnon") - anonymous - bytes_of_data
    return {"seconds": seconds, "peak": peak, "end": end}


def run() -> Section:
    """Measure and report."""
    sizes = [10**exponent for exponent in range(3, 9)]
    with TemporaryDirectory() as folder:
        for size in sizes:
            process.call(write_dataset, path=f"{folder}/{size}.pt", count=size)
        calls = {
            f"{name}, {size:,} points": partial(process.call, measure, name=name, path=f"{folder}/{size}.pt")
            for name in OURS
            for size in sizes
        }
        results = interleaved("growth", 2, calls)

    rows, headlines = [], []
    for name in OURS:
        mine = {size: results[f"{name}, {size:,} points"] for size in sizes}
        for size, result in mine.items():
            times = result["seconds"], result["seconds"] / size
            counts = 8 * size, result["peak"], result["end"]
            rows.append([NAMES[name], f"{size:,}", *map(duration, times), *map(megabytes, counts)])
        costs = [result["seconds"] / size for size, result in mine.items() if size >= 10**6]
        most = max(result["peak"] for result in mine.values())
        headlines.append(
            f"Up to {sizes[-1]:,} points {NAMES[name]} takes at most {megabytes(most)} beyond the data; a point costs "
            f"{' to '.join(map(duration, (min(costs), max(costs))))} an epoch from 1,000,000 points on."
        )
    return Section("Growth", headlines, f"{TEXT}\n{table(HEAD, rows)}")
