"""Training here beside the plain loop, DataLoader, Lightning, skorch, scikit-learn and JAX."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from benchmarks import peers, process
from benchmarks.peers import Peer, Work
from benchmarks.report import Quantities, Section, duration, interleaved, megabytes, table

EPOCHS = 3  # of the warm-up
SECONDS = 0.5  # that two timed trainings differ by, at least
LONG = 1.5  # seconds: a measurement takes this long at least
NAMES = {
    "native": "`eager`",
    "compiled": "`compiled`",
    "plain": "plain loop",
    "dataloader": "DataLoader",
    "batch_sampler": "DataLoader with BatchSampler",
    "lightning": "Lightning",
    "skorch": "skorch",
    "sklearn": "scikit-learn",
    "jax_epoch": "JAX (by epoch)",
    "jax_scan": "JAX (scan)",
}
OURS = ["native", "compiled"]  # this project's
REFERENCE = OURS[-1]  # that the others are compared with
RIVALS = ["plain", "jax_scan", "jax_epoch", "sklearn"]  # in the summary
COMPILERS = {"compiled": 2, "jax_epoch": 1, "jax_scan": 1}  # in how many processes to time it: 2 if kept between runs
LESSON = Work()
TABLE = Work((8, 50, 1), "AdamW", 1e-3, 32)

TEXT = f"""\
The mean squared error of a network with one hidden layer and ReLU, in float32, from the same first parameters. The
points are the lesson's, or rows like a table's: 8 standardized columns, of which 5 matter. Each measurement is a
process of its own, with all cores and the fastest kernels (nothing in the environment says otherwise). Repeats are
interleaved: the first of every peer, then the second of every peer; these are medians.

- {" and ".join(NAMES[name] for name in OURS)}: this project with that value of `train.steps`. It is `train` of
  stages/train/training.py with all that it does meanwhile: record, snapshots, progress, checkpoints. It takes
  a snapshot every twentieth of the epochs and one at the end, as the lesson does of its 200 epochs: one every 10 epochs
  would be tens of thousands in what is measured here, of which no one would look at more than a hundred.
- Peers are set up to be fast. Lightning is barebones, skorch silent, both without validation, and both are handed the
  full batch as one batch made beforehand. scikit-learn has no momentum, no penalty and no stopping rule. DataLoader
  is the customary `DataLoader(TensorDataset(x, y), batch_size=…)`, which collates point by point.
- JAX computes with matrix products, takes its optimizers from optax and reuses the memory of its parameters. *By
  epoch* compiles one epoch, mini-batches as a scan, which Python calls again and again, with orders that NumPy draws.
  *Scan* compiles all epochs into one call, a scan over them that draws the orders itself. Its sort, on one core,
  makes it the slower of the two where points are many and batches small.
- AdamW has torch's options everywhere but in scikit-learn, whose Adam is the nearest that it has: no weight decay.
- *An epoch* is (time of 3k epochs - time of k) / 2k, where k, a power of 4, makes the difference at least {SECONDS} s
  and half of the longer time; the median of as many as fit in {LONG} s, after {EPOCHS} epochs of warm-up. What a
  training begins and ends with cancels, and so do the snapshots, which are as many in both: an epoch is the time of its
  steps, with record, progress and checkpoints.
- *Compiling* is how much longer the first {EPOCHS} epochs of a process take than the same again. Of two times, the
  second is that of a process that finds on disk what the first has compiled. It is empty where nothing is compiled.
- *Peak memory* is beyond what the process held after its imports and one epoch on one point. It includes the data.
- *time / {NAMES[REFERENCE]}* below 1 is in bold: that row is faster."""


class Case(NamedTuple):
    """What to train on, who does, and how often."""

    points: int
    work: Work
    repeats: int
    names: list[str]
    left_out: dict[str, str]  # rows of the table that say why

    def __str__(self) -> str:
        """Return the case in words."""
        batches = f"batches of {self.work.batch_size}" if self.work.batch_size else "full batch"
        return f"{self.points:,} points, {'-'.join(map(str, self.work.widths))}, {self.work.optimizer}, {batches}"


FAST = [name for name in NAMES if name not in ("dataloader", "batch_sampler", "lightning", "skorch")]
ALL = [name for name in NAMES if name != "batch_sampler"]
TOO_LONG = {"DataLoader, Lightning, skorch": "not run: minutes, or like a plain loop"}
OTHERS = {"the others": "not run: quick"}
FULL = [
    Case(100, LESSON, 3, ALL, {}),
    Case(1_000_000, LESSON, 3, FAST, TOO_LONG),
    Case(10_000_000, LESSON, 2, FAST, TOO_LONG),
    Case(100_000, LESSON._replace(batch_size=256), 3, list(NAMES), {}),
    Case(9_000, TABLE, 3, list(NAMES), {}),
]
QUICK = [
    Case(100, LESSON, 1, [*OURS, "plain", "jax_scan"], OTHERS),
    Case(1_000_000, LESSON, 1, [*OURS, "plain"], OTHERS),
    Case(100_000, LESSON._replace(batch_size=256), 1, [*OURS, "plain", "jax_epoch"], OTHERS),
    Case(9_000, TABLE, 1, [*OURS, "plain"], OTHERS),
]


def points(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lesson's points, x and y, float32 (count, 1)."""
    import torch

    from stages.generate.stage import training_points

    x, y = training_points(count, -1.0, 1.0, 0.2, torch.Generator().manual_seed(2))
    return x.numpy(), y.numpy()


def rows(count: int, n_feature: int, n_output: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows like a table's, x, float32 (count, n_feature), and y, float32 (count, n_output), standardized.

    Each y is a function of five columns, and noise: Friedman (1991), Multivariate adaptive regression splines, formula
    61.
    """
    random = np.random.default_rng(2)
    x, targets = random.random((count, n_feature)), []
    for output in range(n_output):
        a, b, c, d, e = np.roll(x, output, axis=1).T[:5]
        targets.append(10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e + random.normal(size=count))
    y = np.stack(targets, axis=1)
    standardized = [((values - values.mean(axis=0)) / values.std(axis=0)).astype(np.float32) for values in (x, y)]
    return standardized[0], standardized[1]


def write_points(folder: str, count: int, widths: Sequence[int]) -> None:
    """Write the lesson's points, or rows of a table, as NumPy files, which every peer reads alike."""
    n_feature, _, n_output = widths
    for name, values in zip("xy", points(count) if n_feature == 1 else rows(count, n_feature, n_output), strict=True):
        np.save(f"{folder}/{name}.npy", values)


def new_peer(name: str, work: Work, folder: str) -> Peer:
    """Return a peer with what `write_points` wrote."""
    return getattr(peers, name)(np.load(f"{folder}/x.npy"), np.load(f"{folder}/y.npy"), work)


def warm_up(name: str, work: Work) -> None:
    """Train on one point, which loads what libraries load on first use."""
    x, y = np.ones((1, work.widths[0]), np.float32), np.ones((1, work.widths[2]), np.float32)
    getattr(peers, name)(x, y, work).fit(1)


def seconds_to_fit(peer: Peer, epochs: int) -> float:
    """Return how long it takes to train for that many epochs more."""
    start = time.perf_counter()
    peer.fit(epochs)
    return time.perf_counter() - start


def seconds_per_epoch(peer: Peer) -> float:
    """Return the time of an epoch, (time of 3k epochs - time of k) / 2k: what it takes to start and to end cancels."""

    def two_fits() -> tuple[float, float]:
        peer.prepare(epochs)
        peer.prepare(3 * epochs)
        return seconds_to_fit(peer, 3 * epochs), seconds_to_fit(peer, epochs)

    epochs = 1
    while True:
        start = time.perf_counter()
        long, short = two_fits()
        if long - short >= max(SECONDS, long / 2):
            break
        epochs *= 4 if long - short > SECONDS / 16 else 16
    differences = [long - short]
    while time.perf_counter() < start + LONG:
        long, short = two_fits()
        differences.append(long - short)
    return median(differences) / (2 * epochs)


def measure(name: str, work: list[Any], folder: str) -> Quantities:
    """Return the time of an epoch, the peak memory beyond that of the libraries, and the loss after the warm-up."""
    warm_up(name, Work(*work))
    before = process.memory("VmHWM")
    peer = new_peer(name, Work(*work), folder)
    peer.fit(EPOCHS)
    parameters = [np.array(values.tolist()) for values in peer.parameters()]
    seconds, peak = seconds_per_epoch(peer), process.memory("VmHWM") - before
    x, y = (np.load(f"{folder}/{name}.npy") for name in "xy")
    some = np.linspace(0, len(x) - 1, 1000).astype(int)
    loss = peers.mean_squared_error(parameters, x[some], y[some])
    return {"seconds": seconds, "loss": loss, "bytes": peak}


def compiling(name: str, work: list[Any], folder: str) -> float:
    """Return how much longer the first training of a process takes than the second."""
    peer = new_peer(name, Work(*work), folder)
    return max(0.0, seconds_to_fit(peer, EPOCHS) - seconds_to_fit(peer, EPOCHS))


def compile_times(name: str, work: Work, folder: str) -> Quantities:
    """Return what compiling takes in one process after another, which share a folder that is empty at first."""
    with TemporaryDirectory() as kept:
        return {
            f"compiling {index}": process.call(compiling, kept, name=name, work=work, folder=folder)
            for index in range(COMPILERS.get(name, 0))
        }


def gradient_errors(names: list[str], folder: str) -> Quantities:
    """Return how far each peer's gradient over all points of the lesson is from float64's.

    Of each parameter it is the greatest error over the greatest gradient; of those, the greatest. The gradient is what
    one step of SGD subtracts, over a learning rate so high that rounding the parameter hides nothing.
    """
    import torch

    work = LESSON._replace(learning_rate=8.0)
    x, y = (torch.from_numpy(np.load(f"{folder}/{name}.npy")) for name in "xy")
    exact, first, errors = peers.torch_net(work).double(), peers.first_parameters(*work.widths), {}
    for some_x, some_y in zip(x.split(1 << 16), y.split(1 << 16), strict=True):
        ((exact(some_x.double()) - some_y.double()).square().sum() / len(x)).backward()
    for name in names:
        peer, greatest = new_peer(name, work, folder), []
        peer.fit(1)
        for start, end, parameter in zip(first, peer.parameters(), exact.parameters(), strict=True):
            gradient = torch.tensor(start.astype(np.float64) - np.array(end.tolist())) / work.learning_rate
            greatest.append(((gradient - parameter.grad).abs().max() / parameter.grad.abs().max()).item())
        errors[name] = max(greatest)
    return errors


def describe(case: Case, results: dict[str, Quantities]) -> str:
    """Return the table of a case, and how well the losses agree."""
    size, rows = case.work.batch_size, []
    unit, parts = ("a step", math.ceil(case.points / size)) if size else ("a point", case.points)
    for name, result in results.items():
        seconds, ratio = result["seconds"], result["ratio"]
        times = f"**{ratio:.2f}, faster**" if ratio < 1 else f"{ratio:.2f}"
        compiling = ", then ".join(duration(value) for key, value in result.items() if key.startswith("compiling"))
        cells = [times, compiling, megabytes(result["bytes"])]
        rows.append([NAMES[name], duration(seconds), duration(seconds / parts), *cells])
    rows += [[name, why, "", "", "", ""] for name, why in case.left_out.items()]
    head = ["", "an epoch", unit, f"time / {NAMES[REFERENCE]}", "compiling", "peak memory"]
    apart = max(abs(result["loss"] / results[REFERENCE]["loss"] - 1) for result in results.values())
    return f"""### {case}

{table(head, rows)}

The data are {megabytes(bytes_of_data(case))}. After the warm-up, all losses are within {apart:.1g} of that of
{NAMES[REFERENCE]}, relatively."""


def bytes_of_data(case: Case) -> int:
    """Return the size of x and y."""
    return 4 * case.points * (case.work.widths[0] + case.work.widths[2])


def headline(case: Case, results: dict[str, Quantities]) -> str:
    """Return how much longer the others take."""
    shown = [name for name in [*OURS, *RIVALS] if name in results and name != REFERENCE]
    ratios = {name: results[name]["ratio"] for name in shown}
    return f"{case}: time over that of {NAMES[REFERENCE]}: {listed(ratios, '× {:.2f}'.format)}."


def listed(values: dict[str, float], style: Callable[[float], str]) -> str:
    """Return names and values in one line."""
    return ", ".join(f"{NAMES[name]} {style(value)}" for name, value in values.items())


def run(quick: bool) -> Section:
    """Measure and report."""
    cases, headlines, tables, faster = QUICK if quick else FULL, [], [], []
    for case in cases:
        with TemporaryDirectory() as folder:
            process.call(write_points, folder=folder, count=case.points, widths=case.work.widths)
            calls = {
                name: partial(process.call, measure, name=name, work=case.work, folder=folder) for name in case.names
            }
            results = interleaved(str(case), case.repeats, calls)
            for name, result in results.items():
                result |= compile_times(name, case.work, folder)
            if case.points == max(case.points for case in cases):
                names = ["native", "plain", "jax_epoch"]  # the first step of `compiled` is an eager one
                errors = process.call(gradient_errors, names=names, folder=folder)
                largest = case
                beyond = {name: results[name]["bytes"] - bytes_of_data(case) for name in ("compiled", *names[:-1])}
        for name, result in results.items():
            result["ratio"] = result["seconds"] / results[REFERENCE]["seconds"]
            if result["ratio"] < 1:
                faster.append(f"{NAMES[name]} × {result['ratio']:.2f} ({case})")
        headlines.append(headline(case, results))
        tables.append(describe(case, results))
    headlines += [
        f"{largest}: memory beyond the data: {listed(beyond, megabytes)}.",
        f"{largest}: the gradient against float64's, the greatest error of a parameter over its greatest gradient: "
        f"{listed(errors, '{:.1e}'.format)}.",
        f"Faster than {NAMES[REFERENCE]}, their time over its: {', '.join(faster) or 'none'}.",
    ]
    return Section("Training", headlines, "\n\n".join([TEXT, *tables]))
