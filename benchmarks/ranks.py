"""One rank beside two, one core each."""

from functools import partial
from tempfile import TemporaryDirectory

from benchmarks.project import Copy
from benchmarks.report import Quantities, Section, duration, interleaved, table

COUNT = 4_000_000  # points
FEW, MANY = 2, 62  # epochs


def measure(copy: Copy, ranks: int) -> Quantities:
    """Return the time of an epoch of the stage `train`, from two trainings, so that what starting takes cancels."""
    seconds = []
    for epochs in (FEW, MANY):
        copy.set({"train.epochs": epochs})
        launcher = ["torchrun", "--standalone", "--nproc-per-node", str(ranks)]
        seconds.append(copy.run(*launcher, "-m", "stages", "train", OMP_NUM_THREADS="1").seconds)
    return {"seconds": (seconds[1] - seconds[0]) / (MANY - FEW)}


def run() -> Section:
    """Measure and report."""
    with TemporaryDirectory() as folder:
        copy = Copy(folder)
        copy.set({"kernels": "native", "generate.points": COUNT, "generate.test_points": 1})
        copy.run("python", "-m", "stages", "generate")
        calls = {name: partial(measure, copy, ranks) for ranks, name in [(1, "1 rank"), (2, "2 ranks")]}
        results = interleaved("ranks", 3, calls)

    one, two = (result["seconds"] for result in results.values())
    rows = [[name, duration(result["seconds"]), f"{one / result['seconds']:.2f}"] for name, result in results.items()]
    return Section(
        "Ranks",
        [f"Two ranks, a core each, train × {one / two:.2f} as fast as one rank on one core."],
        f"""{COUNT:,} points, full batch, `torchrun --standalone --nproc-per-node` 1 or 2, OMP_NUM_THREADS=1: a core
each. An epoch is (time of {MANY} epochs - time of {FEW}) / {MANY - FEW}.

{table(["", "an epoch", "speed"], rows)}""",
    )
