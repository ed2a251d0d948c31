"""What a point costs, in time and memory, as the points grow from a thousand to a hundred million."""

from functools import partial
from tempfile import TemporaryDirectory

from benchmarks import peers, process
from benchmarks.report import Quantities, Section, duration, interleaved, megabytes, table
from benchmarks.training import EPOCHS, points, seconds_per_epoch, warm_up

HEAD = ["points", "an epoch", "a point", "data", "peak beyond the data", "at the end"]
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


def measure(path: str) -> Quantities:
    """Return the time of an epoch, and the memory beyond the libraries and the data."""
    from stages import dataset

    warm_up("ours", None)
    peak, anonymous = process.memory("VmHWM"), process.memory("RssAnon")
    data = dataset.read(path)
    x, y = data.x.numpy(), data.y.numpy()
    peer = peers.ours(x, y, peers.first_parameters(), None)
    peer.fit(EPOCHS)
    seconds = seconds_per_epoch(peer.fit)
    bytes_of_data = x.nbytes + y.nbytes
    peak = process.memory("VmHWM") - peak - bytes_of_data
    end = process.memory("RssAnon") - anonymous - bytes_of_data
    return {"points": len(x), "seconds": seconds, "peak": peak, "end": end}


def run() -> Section:
    """Measure and report."""
    sizes = [10**exponent for exponent in range(3, 9)]
    with TemporaryDirectory() as folder:
        for size in sizes:
            process.call(write_dataset, path=f"{folder}/{size}.pt", count=size)
        calls = {f"{size:,}": partial(process.call, measure, path=f"{folder}/{size}.pt") for size in sizes}
        results = interleaved("growth", 3, calls)

    rows = [
        [size, *map(duration, (result["seconds"], result["seconds"] / result["points"]))]
        + [megabytes(count) for count in (8 * result["points"], result["peak"], result["end"])]
        for size, result in results.items()
    ]
    costs = [result["seconds"] / result["points"] for result in results.values() if result["points"] >= 10**6]
    most = max(result["peak"] for result in results.values())
    headline = (
        f"Up to {sizes[-1]:,} points ours takes at most {megabytes(most)} beyond the data; a point costs "
        f"{' to '.join(map(duration, (min(costs), max(costs))))} an epoch from 1,000,000 points on."
    )
    return Section("Growth", [headline], f"{TEXT}\n{table(HEAD, rows)}")
