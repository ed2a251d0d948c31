"""One rank beside two, one core each."""

from functools import partial
from tempfile import TemporaryDirectory

from benchmarks.project import Copy
from benchmarks.report import Quantities, Section, duration, interleaved, table


def measure(copy: Copy, ranks: int, few: int, many: int) -> Quantities:
    """Return the time of an epoch of the stage `train`, from two trainings, so that what starting takes cancels."""
    seconds = []
    for epochs in (few, many):
        copy.set({"train.epochs": epochs})
        launcher = ["torchrun", "--standalone", "--nproc-per-node", str(ranks)]
        seconds.append(copy.run(*launcher, "-m", "stages", "train", OMP_NUM_THREADS="1").seconds)
    return {"seconds": (seconds[1] - seconds[0]) / (many - few)}


def run(quick: bool) -> Section:
    """Measure and report."""
    count, repeats, few, many = (1_000_000, 1, 1, 41) if quick else (4_000_000, 3, 2, 62)
    with TemporaryDirectory() as folder:
        copy = Copy(folder)
        copy.set({"kernels": "native", "generate.points": count, "generate.test_points": 1})
        copy.run("python", "-m", "stages", "generate")
        calls = {name: partial(measure, copy, ranks, few, many) for ranks, name in [(1, "1 rank"), (2, "2 ranks")]}
        results = interleaved("ranks", repeats, calls)

    one, two = (result["seconds"] for result in results.values())
    rows = [[name, duration(result["seconds"]), f"{one / result['seconds']:.2f}"] for name, result in results.items()]
    return Section(
        "Ranks",
        [f"Two ranks, a core each, train × {one / two:.2f} as fast as one rank on one core."],
        f"""{count:,} points, full batch, `torchrun --standalone --nproc-per-node` 1 or 2, OMP_NUM_THREADS=1: a core
each. An epoch is (time of {many} epochs - time of {few}) / {many - few}.

{table(["", "an epoch", "speed"], rows)}""",
    )
