"""How often trainings that differ in their seeds alone are said to differ, and how often a real difference is seen.

`python -m benchmarks.differences` prints this section alone, in about ten minutes; `--pairs 30` takes a quick look.
"""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import process
from benchmarks.process import PROJECT
from benchmarks.report import Section, table

if TYPE_CHECKING:
    from torch import Tensor

    from stages.dataset import Dataset
    from stages.residuals import Residuals

PAIRS = {"lesson": 300, "auto-mpg": 95}
NETWORKS = (2, 3, 5, 10, 20)
AT_ONCE = 10  # trainings in one pass
METRICS = ("rmse", "mae")
HEAD = ["networks", "only seeds differ", "the same, by rows alone", "rate 0.1 to 0.2", "interval holds the change"]
TEXT = """\
Pairs of trainings are compared as `python -m tools.compare` does, each training with as many networks as the first
column says. Where only the seeds differ, a verdict of better or worse is a false alarm, of which at most 5 % are
promised; `by rows alone` is what comparing the errors row by row says, which leaves out that other seeds give other
networks. In the other columns the learning rate of the lesson is 0.1 in one training and 0.2, which is better, in the
other: the share of pairs where the verdict says so, and where the 95 % interval holds the change that all pairs have on
average. Each cell is that of RMSE / MAE. The trainings of auto-mpg are those of the example, 150 epochs long.
"""


def predictions(
    points: "Dataset", test_x: "Tensor", document: dict[str, Any], seeds: Sequence[int], networks: int
) -> "Tensor":
    """Train as params.yaml says, once with each seed, all in one pass; return what each network predicts.

    The result, (seeds, networks, n, n_output), is what as many trainings would predict, apart from rounding.
    """
    import torch

    from stages import network
    from stages.ensemble import Ensemble, Stack, seeds_of, width
    from stages.folds import HeldBack, Kept
    from stages.tabular import Tabular
    from stages.train.batches import Batches, Points, fitting_micro_size
    from stages.train.checkpoint import Checkpoint
    from stages.train.loss import fitting_loss
    from stages.train.ranks import Ranks
    from stages.train.record import Record
    from stages.train.settings import Train
    from stages.train.training import train
    from stages.train.validation import folds_of

    section, settings = network.Network(**document["network"]), Train(**document["train"])
    loss = fitting_loss(settings.loss, classes=bool(points.names.classes))
    settings = settings.model_copy(update={"networks": len(seeds) * networks, "loss": loss})
    points = points._replace(x=points.x.clone(), y=points.y.clone())
    sizes = points.x.shape[1], points.y.shape[1]
    own_seeds = [own for seed in seeds for own in seeds_of(seed, networks)]
    net = Stack([network.build(section, *sizes, seed) for seed in own_seeds], sizes[0])
    model = Tabular(Ensemble(net, sizes[1]), points.names)
    if section.standardize:
        model.fit(points.x, points.y)
        model.standardize_(points.x, points.y)
    rows, micro_size = len(points.x), fitting_micro_size(torch.device("cpu"), width(net))
    folds = [folds_of(rows, settings.validation_fraction, networks, seed) for seed in seeds]
    training, validation = Points(points.x, points.y, rows), None
    if size := folds[0].size:
        held_back = torch.cat([fold.held_back() for fold in folds])  # (seeds * networks, size)
        training = Points(*training[:2], rows - size, Kept(held_back, rows))
        known = Points(*training[:2], size, HeldBack(held_back, rows))
        validation = Batches(known, None, micro_size, Ranks(), own_seeds)
    batches = Batches(training, settings.batch_size, micro_size, Ranks(), own_seeds)
    record = Record(points.x[:1], sizes[1], settings.epochs, settings.epochs, settings.networks)
    fingerprint = {"seeds": str(own_seeds)}  # else a training would go on from the checkpoint of the one before
    train(net, batches, validation, settings, record, Checkpoint(fingerprint, settings.epochs, Ranks()))
    with torch.no_grad():
        return model.eval().each(test_x).unflatten(0, (len(seeds), networks))


def residuals_of(predicted: "Tensor", y: "Tensor") -> "Residuals":
    """Return the errors of the mean of networks, whose predictions are (networks, n, n_output), and of y."""
    from stages.residuals import Residuals

    each, true = predicted.double().numpy(), y.double().numpy()
    mean, networks = each.mean(axis=0), len(each)
    metrics: dict[str, Callable[[np.ndarray], float]] = {
        "rmse": lambda error: math.sqrt(np.square(error).mean()),
        "mae": lambda error: float(np.abs(error).mean()),
    }
    without = (mean * networks - each) / (networks - 1) - true if networks > 1 else each[:0]
    return Residuals(
        len(true),
        "",
        [str(index) for index in range(true.shape[1])],
        np.arange(len(true)),
        true,
        mean - true,
        {name: metric(mean - true) for name, metric in metrics.items()},
        {name: np.array([metric(error) for error in without]) for name, metric in metrics.items()},
    )


def trainings(
    points: "Dataset", test: "Dataset", document: dict[str, Any], count: int, networks: int, at_once: int = AT_ONCE
) -> Iterator["Tensor"]:
    """Yield what the networks of so many trainings predict, (networks, n, n_output), with seeds 0, 1, 2, …."""
    for first in range(0, count, at_once):
        seeds = range(first, min(count, first + at_once))
        yield from predictions(points, test.x, document, seeds, networks)


def rates(one: list["Residuals"], other: list["Residuals"], metric: str) -> tuple[float, float, float]:
    """Return how often `other` is said to be worse or better, how often by rows alone, how often the interval holds.

    The last is how often the change is in its interval that the trainings have on average.
    """
    from tools.compare.change import BETTER, WORSE, change

    logs = [np.log([side.overall[metric] for side in sides]).mean() for sides in (one, other)]
    expected = math.exp(logs[1] - logs[0]) - 1
    nothing = {name: np.zeros(0) for name in METRICS}
    said = alone = held = 0
    for old, new in zip(one, other, strict=True):
        its = change(old, new, metric)
        by_rows = change(old._replace(without=nothing), new._replace(without=nothing), metric)
        said += its.verdict in (BETTER, WORSE)
        alone += not by_rows.low <= 0 <= by_rows.high
        held += its.low <= expected <= its.high
    return said / len(one), alone / len(one), held / len(one)


def lesson() -> tuple["Dataset", "Dataset", dict[str, Any]]:
    """Return the lesson's points to train on and to test on, and its params."""
    from stages.generate.curve import Curve
    from stages.generate.stage import points_of_curve
    from stages.runtime import params

    document = params.load(str(PROJECT / "tests/params.yaml"))
    return *points_of_curve(Curve(**document["generate"])), document


def auto_mpg() -> tuple["Dataset", "Dataset", dict[str, Any]]:
    """Return the rows of the example to train on and to test on, and its params, for fewer epochs."""
    from stages.generate.own_table import OwnTable
    from stages.generate.stage import points_of_table
    from stages.runtime import params

    document = params.load(str(PROJECT / "examples/auto-mpg/params.yaml"))
    document["train"].update(epochs=150, patience=None)
    os.chdir(PROJECT)  # where its table is
    return *points_of_table(OwnTable(**document["generate"]), lambda rows: None), document


def measure(case: str, pairs: int) -> list[list[str]]:
    """Return the lines of the table of a case."""
    points, test, document = {"lesson": lesson, "auto-mpg": auto_mpg}[case]()
    each = [list(trainings(points, test, document, 2 * pairs, max(NETWORKS)))]
    if case == "lesson":
        document["train"]["learning_rate"] = 0.1
        each.append(list(trainings(points, test, document, pairs, max(NETWORKS))))
    lines = []
    for networks in NETWORKS:
        sides = [[residuals_of(predicted[:networks], test.y) for predicted in some] for some in each]
        false = [rates(sides[0][::2], sides[0][1::2], metric) for metric in METRICS]
        true = [rates(sides[1], sides[0][:pairs], metric) for metric in METRICS] if len(sides) > 1 else []
        columns = [(false, 0), (false, 1), (true, 0), (true, 2)]
        lines.append([str(networks), *(" / ".join(f"{own[kind]:.1%}" for own in some) for some, kind in columns)])
    return lines


def run(pairs: dict[str, int] = PAIRS) -> Section:
    """Measure and report."""
    results = {case: process.call(measure, case=case, pairs=count) for case, count in pairs.items()}
    tables = [f"### {case}, {pairs[case]} pairs\n\n{table(HEAD, lines)}" for case, lines in results.items()]
    alarms = [line[1] for lines in results.values() for line in lines]
    most = max(float(share.rstrip("%")) for both in alarms for share in both.split(" / "))
    headline = f"Trainings that differ in their seeds alone are said to differ in at most {most:.1f} % of pairs."
    return Section("Differences", [headline], "\n\n".join([TEXT, *tables]))


def main() -> None:
    """Print the section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.differences", description="Simulate comparisons.")
    parser.add_argument("--pairs", type=int, help="of trainings, for each case")
    pairs = parser.parse_args().pairs
    sys.stdout.write(f"{run({case: pairs or count for case, count in PAIRS.items()}).text}\n")


if __name__ == "__main__":
    import_module("benchmarks.differences").main()  # under the name by which other processes find it
