"""Training here beside the plain loop, DataLoader, Lightning, skorch, scikit-learn and JAX."""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from benchmarks import peers, process
from benchmarks.report import Quantities, Section, duration, interleaved, megabytes, table

EPOCHS = 3  # of the warm-up
SECONDS = 0.25  # that the shorter of two timed trainings takes at least
LONG = 2.5  # seconds: a measurement takes this long at least
NAMES = {
    "ours": "this project",
    "plain": "plain loop",
    "dataloader": "DataLoader",
    "batch_sampler": "DataLoader with BatchSampler",
    "lightning": "Lightning",
    "skorch": "skorch",
    "sklearn": "scikit-learn",
    "jax": "JAX",
}

TEXT = f"""\
y = x² + noise, a 1-10-1 network with ReLU, plain SGD at learning rate {peers.RATE}, float32, the same first parameters.
Each measurement is a process of its own, with all cores and the fastest kernels (`kernels: native`; nothing in the
environment says otherwise). Repeats are interleaved: the first of every peer, then the second of every peer; these are
medians.

- Ours is `train` of stages/train/stage.py with all that it does meanwhile: record, snapshots, progress, checkpoints.
- Peers are set up to be fast. Lightning is barebones, skorch silent, both without validation, and both are handed the
  full batch as one batch made beforehand. JAX compiles an epoch whole, mini-batches as a scan, and donates the
  parameters. scikit-learn has no momentum, no penalty and no stopping rule. DataLoader is the customary
  `DataLoader(TensorDataset(x, y), batch_size=…)`, which collates point by point.
- *An epoch* is (time of 3k epochs - time of k) / 2k, where k, a power of two, takes at least {SECONDS} s; the median
  of as many as fit in {LONG} s, after {EPOCHS} epochs of warm-up: compiling and starting up are in none of it.
- *Peak memory* is beyond what the process held after its imports and one epoch on one point. It includes the data.
- *time / ours* below 1 is in bold: that peer is faster."""


class Case(NamedTuple):
    """What to train on, who does, and how often."""

    points: int
    batch_size: int | None
    repeats: int
    names: list[str]
    left_out: tuple[list[str], ...] = ()  # rows of the table that say why

    def __str__(self) -> str:
        """Return the case in words."""
        return f"{self.points:,} points, {f'batches of {self.batch_size}' if self.batch_size else 'full batch'}"


ALL = [name for name in NAMES if name != "batch_sampler"]
TOO_LONG = [NAMES["dataloader"], "not run: minutes", "", "", ""]
OTHERS = ["the others", "not run: quick", "", "", ""]
# The smallest first, then the largest full batch last but one, and mini-batches last.
FULL = [
    Case(100, None, 3, ALL),
    Case(10_000, None, 3, ALL),
    Case(1_000_000, None, 3, ALL),
    Case(10_000_000, None, 3, [name for name in ALL if name != "dataloader"], (TOO_LONG,)),
    Case(100_000, 256, 3, list(NAMES)),
]
QUICK = [
    Case(100, None, 1, ["ours", "plain"], (OTHERS,)),
    Case(1_000_000, None, 1, ["ours", "plain"], (OTHERS,)),
    Case(100_000, 256, 1, ["ours", "plain", "dataloader"], (OTHERS,)),
]


def points(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lesson's points, x and y, float32 (count, 1)."""
    import torch

    from stages.generate.stage import training_points

    x, y = training_points(count, -1.0, 1.0, 0.2, torch.Generator().manual_seed(2))
    return x.numpy(), y.numpy()


def write_points(folder: str, count: int) -> None:
    """Write the lesson's points as NumPy files, which every peer reads alike."""
    for name, values in zip("xy", points(count), strict=True):
        np.save(f"{folder}/{name}.npy", values)


def read_points(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Return what `write_points` wrote."""
    return np.load(f"{folder}/x.npy"), np.load(f"{folder}/y.npy")


def warm_up(name: str, batch_size: int | None) -> None:
    """Train on one point, which loads what libraries load on first use."""
    point = np.ones((1, 1), np.float32)
    getattr(peers, name)(point, point, peers.first_parameters(), batch_size).fit(1)


def seconds_per_epoch(fit: Callable[[int], object]) -> float:
    """Return the time of an epoch, (time of 3k epochs - time of k) / 2k: what it takes to start and to end cancels."""

    def seconds(epochs: int) -> float:
        start = time.perf_counter()
        fit(epochs)
        return time.perf_counter() - start

    epochs = 1
    while seconds(epochs) < SECONDS:
        epochs *= 2
    results: list[float] = []
    end = time.perf_counter() + LONG
    while not results or time.perf_counter() < end:
        results.append((seconds(3 * epochs) - seconds(epochs)) / (2 * epochs))
    return median(results)


def measure(name: str, folder: str, batch_size: int | None) -> Quantities:
    """Return the time of an epoch, the peak memory beyond that of the libraries, and the loss after the warm-up."""
    warm_up(name, batch_size)
    before = process.memory("VmHWM")
    x, y = read_points(folder)
    peer = getattr(peers, name)(x, y, peers.first_parameters(), batch_size)
    peer.fit(EPOCHS)
    some = np.linspace(0, len(x) - 1, 1000).astype(int)
    loss = peers.mean_squared_error(peer.parameters(), x[some], y[some])
    return {"seconds": seconds_per_epoch(peer.fit), "loss": loss, "bytes": process.memory("VmHWM") - before}


def gradient_errors(folder: str) -> Quantities:
    """Return how far the gradients over all points, ours and the plain loop's, are from float64's.

    Of each parameter it is the greatest error over the greatest gradient; of those, the greatest.
    """
    import torch

    x, y = read_points(folder)
    exact, errors = peers.torch_net(peers.first_parameters()).double(), {}
    for some_x, some_y in zip(torch.from_numpy(x).split(1 << 16), torch.from_numpy(y).split(1 << 16), strict=True):
        ((exact(some_x.double()) - some_y.double()).square().sum() / len(x)).backward()
    for name in ["ours", "plain"]:
        peer = getattr(peers, name)(x, y, peers.first_parameters(), None)
        peer.fit(1)  # leaves the gradient of its one step
        pairs = [(mine.grad, other.grad) for mine, other in zip(peer.parameters(), exact.parameters(), strict=True)]
        errors[name] = max(((mine - other).abs().max() / other.abs().max()).item() for mine, other in pairs)
    return errors


def describe(case: Case, results: dict[str, Quantities]) -> str:
    """Return the table of a case, and how well the losses agree."""
    rows = []
    for name, result in results.items():
        seconds, ratio = result["seconds"], result["ratio"]
        times = f"**{ratio:.2f}, faster**" if ratio < 1 else f"{ratio:.2f}"
        rows.append(
            [NAMES[name], duration(seconds), duration(seconds / case.points), times, megabytes(result["bytes"])]
        )
    apart = max(abs(result["loss"] / results["ours"]["loss"] - 1) for result in results.values())
    return f"""### {case}

{table(["", "an epoch", "a point", "time / ours", "peak memory"], [*rows, *case.left_out])}

The data are {megabytes(8 * case.points)}. After the warm-up all losses are within {apart:.1g} of ours, relatively."""


def run(quick: bool) -> Section:
    """Measure and report."""
    cases, tables, faster, measured = QUICK if quick else FULL, [], [], []
    for case in cases:
        with TemporaryDirectory() as folder:
            process.call(write_points, folder=folder, count=case.points)
            calls = {
                name: partial(process.call, measure, name=name, folder=folder, batch_size=case.batch_size)
                for name in case.names
            }
            results = interleaved(str(case), case.repeats, calls)
            if case is cases[-2]:
                errors = process.call(gradient_errors, folder=folder)
        for name, result in results.items():
            result["ratio"] = result["seconds"] / results["ours"]["seconds"]
            if result["ratio"] < 1:
                faster.append(f"{NAMES[name]} × {result['ratio']:.2f} ({case})")
        measured.append(results)
        tables.append(describe(case, results))

    (small, *_, large, mini), data = measured, 8 * cases[-2].points
    headlines = [
        f"{cases[-2]}: the plain loop takes × {large['plain']['ratio']:.2f} our time, and beyond the data "
        f"{megabytes(large['plain']['bytes'] - data)} where ours takes {megabytes(large['ours']['bytes'] - data)}.",
        f"{cases[0]}: ours, with record and progress, takes × {1 / small['plain']['ratio']:.2f} the bare steps' time.",
        f"{cases[-1]}: DataLoader takes × {mini['dataloader']['ratio']:.2f} our time, the plain loop "
        f"× {mini['plain']['ratio']:.2f}.",
        f"Gradient over {cases[-2].points:,} points against float64, the greatest error of a parameter over its "
        f"greatest gradient: ours {errors['ours']:.1e}, the plain loop {errors['plain']:.1e}.",
        f"Faster than ours, their time over ours: {', '.join(faster) or 'none'}.",
    ]
    return Section("Training", headlines, "\n\n".join([TEXT, *tables]))
