"""The settings for tables beside boosted trees: `.venv-bench/bin/python -m benchmarks.tables` prints a Markdown table.

It is run by hand and takes about a quarter of an hour; `--splits 2` takes a quick look. docs/tables.md has its figures.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import yaml
from pyarrow import csv
from sklearn import datasets, ensemble

from benchmarks import process, report
from stages.runtime import params

HEAD = ["", "rows", "one network", "mean of ten", "least squares", "gradient boosting", "histogram boosting"]
HEAD += ["covered at 90%", "seconds a fit"]


def robot_arm() -> tuple[np.ndarray, np.ndarray]:
    """Return the angles of a plane arm's 8 joints, which are inexact, and how far its hand is from a point."""
    random = np.random.default_rng(2)
    angles = random.uniform(-np.pi / 2, np.pi / 2, (8192, 8))
    exact = angles + random.normal(0, 0.045, angles.shape)
    turned = np.cumsum(exact * [0.7, 0.75, 0.8, 0.85, 0.85, 0.9, 0.9, 1], axis=1)
    x, y = (np.linspace(0.22, 0.08, 8) * [np.cos(turned), np.sin(turned)]).sum(axis=2)
    return angles, np.hypot(x - 0.3, y - 0.5) + random.normal(0, 0.03, len(angles))


class Case(NamedTuple):
    """A table, and what is done to it."""

    make: Callable[[], tuple[np.ndarray, np.ndarray]] | None  # x, (n, n_feature), and y, (n,); None: the example's
    outliers: float = 0  # share of the training rows whose target is multiplied by ten; test rows stay as they are
    loss: str = "MSELoss"

    def table(self) -> Any:
        """Return it as a table whose last column is the target."""
        if not self.make:
            return csv.read_csv(process.PROJECT / "data/raw/auto-mpg.csv")
        x, y = self.make()
        return pyarrow.table({**{f"x{index}": column for index, column in enumerate(x.T)}, "y": y})


friedman_1 = partial(datasets.make_friedman1, random_state=1)
CASES = {
    "Auto MPG": Case(None),
    "diabetes": Case(partial(datasets.load_diabetes, return_X_y=True)),
    "Friedman 1": Case(partial(friedman_1, n_samples=300, noise=1.0)),
    "Friedman 1, 1% outliers": Case(partial(friedman_1, n_samples=1000, noise=1.0), 0.01),
    "the same, SmoothL1Loss": Case(partial(friedman_1, n_samples=1000, noise=1.0), 0.01, "SmoothL1Loss"),
    "Friedman 1, no noise": Case(partial(friedman_1, n_samples=3000)),
    "Friedman 2": Case(partial(datasets.make_friedman2, n_samples=1500, noise=60.0, random_state=1)),
    "Friedman 3": Case(partial(datasets.make_friedman3, n_samples=700, noise=0.08, random_state=1)),
    "robot arm": Case(robot_arm),
}


def lay_out(case: Case, split: int) -> None:
    """Write a random nine tenths of the rows to train on, the others to test on, and params.yaml."""
    random, table = np.random.default_rng(split), case.table()
    target = table.column_names[-1]
    test, train = (table.take(rows) for rows in np.split(random.permutation(len(table)), [len(table) // 10]))
    factors = np.where(random.random(len(train)) < case.outliers, 10, 1)
    train = train.drop([target]).append_column(target, [train[target].to_numpy() * factors])
    paths = {"path": "data/raw/train.csv", "test_path": "data/raw/test.csv"}
    Path("data/raw").mkdir(parents=True)
    for rows, path in zip((train, test), paths.values(), strict=True):
        csv.write_csv(rows, path)
    document = params.load(str(process.PROJECT / "examples/auto-mpg/params.yaml"))
    document["generate"] = {"source": "table", **paths, "target": target, "features": None}
    document["train"].update(seed=split, loss=case.loss)
    Path("params.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def measure(name: str, split: int) -> list[float]:
    """Return the number of rows, the test RMSE of each model, and the seconds that fitting takes each but the linear.

    The figure of one network is the mean over the ten. Before the seconds stands the share of the test rows that the
    intervals cover. The stages run as from the command line; the trees get the rows that `generate` wrote, categories
    as zeros and ones.
    """
    from stages.runtime.run import run

    lay_out(CASES[name], split)
    run("generate")
    seconds = [processor_time(partial(run, "train"))]
    run("evaluate")
    metrics = json.loads(Path("data/metrics.json").read_text(encoding="utf-8"))
    errors = [metrics["test_rmse_of_one"], metrics["test_rmse"], metrics["baselines"]["least_squares"]["rmse"]]

    from stages import dataset  # late: torch must not load before the stages have chosen its kernels

    train, test = (dataset.read(f"data/{rows}.pt") for rows in ("train", "test"))
    for kind in (ensemble.GradientBoostingRegressor, ensemble.HistGradientBoostingRegressor):
        model = kind(random_state=split)
        seconds.append(processor_time(partial(model.fit, train.x.numpy(), train.y[:, 0].numpy())))
        residuals = model.predict(test.x.numpy()) - test.y[:, 0].numpy()
        errors.append(float(np.sqrt(np.square(residuals).mean())))
    return [len(train.x) + len(test.x), *errors, metrics["interval_coverage"], *seconds]


def processor_time(act: Callable[[], object]) -> float:
    """Return the seconds that it keeps the processor busy, whatever else the machine does."""
    start = time.process_time()
    act()
    return time.process_time() - start


def main() -> None:
    """Train on all splits of all tables, and print the means."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description="Compare the settings for tables.")
    parser.add_argument("--splits", type=int, default=8, help="random splits of each table, at least 2")
    splits = parser.parse_args().splits
    process.NATIVE["OMP_NUM_THREADS"] = "1"  # for the trees; the network takes one thread by its params
    sys.stdout.write(f"{splits} random splits, {report.origin()}\n\n{report.table(HEAD, [])}\n")
    for name in CASES:
        results = zip(*(process.call(measure, name=name, split=split) for split in range(splits)), strict=True)
        (rows, *_), *columns = map(list, results)
        errors = [f"{mean(some):.3g} ± {stdev(some) / splits**0.5:.2g}" for some in columns[:5]]
        covered, seconds = f"{mean(columns[5]):.1%}", " / ".join(f"{mean(some):.2g}" for some in columns[6:])
        sys.stdout.write(f"| {' | '.join([name, f'{rows:,}', *errors, covered, seconds])} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    import_module("benchmarks.tables").main()  # under the name by which other processes find it
