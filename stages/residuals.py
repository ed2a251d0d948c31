"""How far predictions of the test rows are from the truth, as a file (.csv): what comparing two trainings needs."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from stages.runtime import files

HEADER = ("part", "number", "target", "true", "error")  # and then the metrics
OF_AMOUNTS = ("rmse", "mae")
OF_CLASSES = ("log_loss", "brier")


class Residuals(NamedTuple):
    """Errors of the mean prediction in k of the test rows, and metrics over all test rows, in which less is better.

    Of a category, true are the classes, and errors the probabilities of these less 1.
    """

    n: int  # test rows
    table: str  # a digest of the table that they are from; "" for the lesson
    targets: list[str]
    rows: np.ndarray  # int64 (k,): which of the test rows, evenly spread, ascending
    true: np.ndarray  # (k, n_output): float64, or text of a category
    errors: np.ndarray  # float64 (k, n_output): prediction - true
    overall: dict[str, float]  # each of OF_AMOUNTS or OF_CLASSES, over all test rows and targets
    without: dict[str, np.ndarray]  # each of them, with each network left out, float64 (networks,), or (0,) of one
    losses: Mapping[str, np.ndarray] = MappingProxyType({})  # of OF_CLASSES, float64 (k,): what each is the mean of

    def of_rows(self, metric: str) -> np.ndarray:
        """Return what the metric is the mean of, or the root of that mean, in each of the k rows, float64 (k,)."""
        if metric in self.losses:
            return self.losses[metric]
        return (np.square if metric == "rmse" else np.abs)(self.errors).mean(axis=1)

    def influence(self, metric: str) -> np.ndarray:
        """Return by how much each of the k rows moves the metric, float64 (k,), by the delta method.

        Over all n rows, the metric's variance is theirs divided by n. The mean squared error is a mean over rows, so
        that a row's share in it is its squared error less the mean; in its root, that divided by twice the root.
        """
        value = self.overall[metric]
        if metric != "rmse":
            return self.of_rows(metric) - value
        return (self.of_rows(metric) - value**2) / (2 * value) if value else np.zeros(len(self.errors))

    def variance_of_rows(self, metric: str) -> float:
        """Return the variance of the metric that comes from the choice of test rows; nan of a single row."""
        influence = self.influence(metric)
        return float(influence.var(ddof=1)) / self.n if len(influence) > 1 else math.nan

    def variance_of_networks(self, metric: str) -> float:
        """Return the variance of the metric that comes from the networks, nan if there is one, by the jackknife.

        On average it is not too small, but may be too large. Source: Efron and Stein 1981, The Jackknife Estimate of
        Variance, Annals of Statistics 9.
        """
        without = self.without[metric]
        networks = len(without)
        return float(np.square(without - without.mean()).sum()) * (networks - 1) / networks if networks else math.nan


def write(path: str, residuals: Residuals) -> None:
    """Write the residuals as a CSV table: a line for the table, for all rows, for each row and target, each network."""
    with files.writing(path) as file:
        file.write(_text(residuals).encode())


def parse(text: str) -> Residuals:
    """Return the residuals in the text of a file that `write` wrote. Raises ValueError if it is another."""
    by_part: dict[str, list[dict[str, str]]] = {}
    try:
        lines = csv.DictReader(io.StringIO(text))
        names = OF_CLASSES if OF_CLASSES[0] in (lines.fieldnames or ()) else OF_AMOUNTS
        classes = names == OF_CLASSES
        for line in lines:
            by_part.setdefault(line["part"], []).append(line)
        (table,), (overall,) = by_part["table"], by_part["all rows"]
        rows, networks = by_part["row"], by_part.get("without network", [])
        targets = list(dict.fromkeys(line["target"] for line in rows))
        true = np.array([line["true"] if classes else float(line["true"]) for line in rows])
        errors = np.array([float(line["error"]) for line in rows])
        residuals = Residuals(
            int(table["number"]),
            table["target"],
            targets,
            np.array([int(line["number"]) for line in rows[:: len(targets)]]),
            true.reshape(-1, len(targets)),
            errors.reshape(-1, len(targets)),
            {name: float(overall[name]) for name in names},
            {name: np.array([float(line[name]) for line in networks]) for name in names},
            {name: np.array([float(line[name]) for line in rows]) for name in names} if classes else {},
        )
    except (csv.Error, KeyError, TypeError) as error:
        raise ValueError(f"not as this project writes it: {error}") from error
    metrics = [*residuals.overall.values()]
    numbers = np.concatenate([errors, metrics, *residuals.without.values(), *residuals.losses.values()])
    if _text(residuals) != text or not (np.isfinite(numbers).all() and (classes or np.isfinite(true).all())):
        raise ValueError("not as this project writes it")
    return residuals


def _text(residuals: Residuals) -> str:
    text = io.StringIO()
    table = csv.DictWriter(text, [*HEADER, *residuals.overall], lineterminator="\n")
    table.writeheader()
    table.writerow({"part": "table", "number": residuals.n, "target": residuals.table})
    table.writerow({"part": "all rows", **{name: f"{value:.17g}" for name, value in residuals.overall.items()}})
    for place, row in enumerate(residuals.rows):
        losses = {name: f"{values[place]:.9g}" for name, values in residuals.losses.items()}
        for target, true, error in zip(residuals.targets, residuals.true[place], residuals.errors[place], strict=True):
            cells = {"true": true if residuals.losses else f"{true:.9g}", "error": f"{error:.9g}", **losses}
            table.writerow({"part": "row", "number": row, "target": target, **cells})
    for number, metrics in enumerate(zip(*residuals.without.values(), strict=True)):
        numbers = dict(zip(residuals.without, (f"{value:.17g}" for value in metrics), strict=True))
        table.writerow({"part": "without network", "number": number, **numbers})
    return text.getvalue()


def read(path: str) -> Residuals:
    """Return the residuals in a file. Raises UserError if it is missing or damaged."""
    with files.reading(path, "a table of this project's errors"):
        return parse(Path(path).read_text(encoding="utf-8"))
