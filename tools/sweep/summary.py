"""What the runs of a value have in common, and which differences between values are larger than chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan, sqrt
from statistics import mean, stdev

from mpmath import betainc

from tools.sweep.plan import Run

LEVEL = 0.05  # the chance, at most, that the best value is said to be worse than another


@dataclass(frozen=True)
class Value:
    """The results of a value of the swept param, by seed: of the runs that succeeded."""

    shown: str
    number: float | None
    results: Mapping[int | None, float]

    @property
    def mean(self) -> float:
        """The mean over the seeds; NaN if all runs failed."""
        return mean(self.results.values()) if self.results else nan

    @property
    def spread(self) -> float:
        """The standard deviation of one run, from the n - 1 degrees of freedom of the sample."""
        return stdev(self.results.values()) if len(self.results) > 1 else nan


@dataclass(frozen=True)
class Gap:
    """How far a value is behind the best one: the mean over the seeds, its standard error, and how likely by chance."""

    mean: float
    error: float
    p: float


def best_of(values: Sequence[Value], *, maximize: bool) -> Value:
    """Return the value with the best mean, of those that have results."""
    return (max if maximize else min)((value for value in values if value.results), key=lambda value: value.mean)


def gap(value: Value, best: Value, comparisons: int, *, maximize: bool) -> Gap:
    """Return how far a value is behind the best one, in the differences between runs with the same seed.

    Runs with the same seed may share much of their luck, which the differences leave out. p is one-sided, from
    Student's t, times the number of values that the best one is compared with. That one was picked by its mean, yet the
    chance that the truly best value is among those with p ≤ LEVEL is at most LEVEL: Hsu, Annals of Statistics 9 (1981),
    with Bonferroni's inequality in place of his quantiles.
    """
    sign = -1 if maximize else 1
    differences = [sign * (value.results[seed] - best.results[seed]) for seed in best.results if seed in value.results]
    if len(differences) < 2:
        return Gap(mean(differences) if differences else nan, nan, 1.0)
    average, error = mean(differences), stdev(differences) / sqrt(len(differences))
    freedom = len(differences) - 1
    t = average / error if error else inf if average > 0 else 0.0
    tail = float(betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True)) / 2  # above |t|
    return Gap(average, error, min(1.0, comparisons * (tail if t >= 0 else 1 - tail)))


def by_value(runs: Sequence[Run], results: Mapping[str, float]) -> list[Value]:
    """Return the values in their order, numbers sorted, each with the results of its runs."""
    grouped: dict[str, tuple[float | None, dict[int | None, float]]] = {}
    for run in runs:
        _, found = grouped.setdefault(run.value, (run.number, {}))
        if run.name in results:
            found[run.seed] = results[run.name]
    values = [Value(shown, number, found) for shown, (number, found) in grouped.items()]
    if all(value.number is not None for value in values):
        values.sort(key=lambda value: value.number or 0.0)
    return values


def table(values: Sequence[Value], key: str, metric: str, *, maximize: bool) -> list[str]:
    """Return the lines of the table, and below it a sentence on which differences are larger than chance."""
    best = best_of(values, maximize=maximize)
    others = [value for value in values if value is not best and value.results]
    gaps = {value.shown: gap(value, best, len(others), maximize=maximize) for value in others}
    rows = [[key, metric, "spread", "n", "behind the best", "p"]]
    for value in values:
        if value is best:
            behind = ["best", ""]
        elif value.shown in gaps:
            found = gaps[value.shown]
            behind = (
                [f"{found.mean:.4g} ± {found.error:.2g}", f"{found.p:.2g}"]
                if isfinite(found.error)
                else [f"{found.mean:.4g}", "-"]
            )
        else:
            behind = ["-", "-"]
        rows.append([value.shown, _number(value.mean), _number(value.spread), str(len(value.results)), *behind])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [*lines, "", *_verdict(best, gaps)]


def _number(value: float) -> str:
    return f"{value:.4g}" if isfinite(value) else "-"


def _verdict(best: Value, gaps: Mapping[str, Gap]) -> list[str]:
    if not gaps:
        return []
    told = [name for name, found in gaps.items() if isfinite(found.error)]
    if not told:
        return [f"{best.shown} has the best mean, perhaps by chance: how much chance does, only several --seeds show."]
    larger = [name for name in told if gaps[name].p <= LEVEL]
    rest = [name for name in gaps if name not in larger]
    lines = [f"Larger than chance (p ≤ {LEVEL}): {best.shown} is better than {', '.join(larger)}."] if larger else []
    if rest:
        lines.append(f"Not larger than chance: the difference between {best.shown} and {', '.join(rest)}.")
    return lines
