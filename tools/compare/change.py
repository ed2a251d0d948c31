"""Whether the change of a metric from one training to another is more than chance.

Chance has two parts. Other test rows would give another change: both trainings predict the same rows, so this part is
that of the differences, row by row. Other seeds would give other networks: this part is measured by a jackknife over
the networks of each training. docs/differences.md derives both, and says how well they are calibrated.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from mpmath import betainc

from stages.residuals import Residuals

LEVEL = 0.95  # with which the intervals of all changes of a metric hold together
SAME, BETTER, WORSE, CHANCE, UNKNOWN = "the same", "better", "worse", "could be chance", "unknown"


class Change(NamedTuple):
    """The relative change of a metric, such as -0.1 for ten percent less, its interval, and what they say."""

    verdict: str
    relative: float = math.nan
    low: float = math.nan  # nan: there is no interval
    high: float = math.nan


def change(old: Residuals, new: Residuals, metric: str, comparisons: int = 1) -> Change:
    """Return the change of a metric, in which less is better, between trainings that predict the same test rows.

    All is computed on the logarithm of the metric, which is distributed more evenly, and does not depend on units. Its
    variance adds three parts: the rows', by the delta method, and the networks' of each training, by the jackknife
    (Efron & Stein 1981, The Jackknife Estimate of Variance). The interval is Student's, with the degrees of freedom
    of Satterthwaite (1946), but no more than those of the networks; of `comparisons` changes, each takes its share of
    1 - LEVEL (Bonferroni). If a training has one network, the interval counts the rows alone, and says nothing.
    """
    values = old.overall[metric], new.overall[metric]
    if values[0] == values[1] and np.array_equal(old.errors, new.errors):
        return Change(SAME, 0.0)
    if min(*values, *old.without[metric], *new.without[metric]) <= 0:
        return Change(UNKNOWN)
    middle = math.log(values[1] / values[0])
    relative = math.expm1(middle)
    if len(old.rows) < 2:
        return Change(UNKNOWN, relative)
    by_row = new.influence(metric) / values[1] - old.influence(metric) / values[0]
    parts = [(float(by_row.var(ddof=1)) / old.n, len(by_row) - 1)]
    networks = [(_jackknife(np.log(side.without[metric])), len(side.without[metric]) - 1) for side in (old, new)]
    known = all(freedom > 0 for _, freedom in networks)
    parts += networks if known else []
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / own for part, own in parts) if variance else 1.0
    if known:
        freedom = min(freedom, sum(own for _, own in networks))
    half = t_quantile(1 - (1 - LEVEL) / comparisons, freedom) * math.sqrt(variance)
    low, high = (math.expm1(middle + shift) for shift in (-half, half))
    verdict = UNKNOWN if not known else BETTER if high < 0 else WORSE if low > 0 else CHANCE
    return Change(verdict, relative, low, high)


def standard_error(side: Residuals, metric: str) -> float:
    """Return the standard error of a metric, from the rows and, if there are several, the networks; nan of one row."""
    networks = side.variance_of_networks(metric) if len(side.without[metric]) else 0.0
    return math.sqrt(side.variance_of_rows(metric) + networks)


def t_quantile(level: float, freedom: float) -> float:
    """Return what Student's t is below, whatever its sign, with this probability; the freedom is cut to tenths."""
    return _t_quantile(level, max(1.0, math.floor(freedom * 10) / 10))


@cache
def _t_quantile(level: float, freedom: float) -> float:
    low, high = 0.0, 1.0  # between them is x = freedom / (freedom + t²)
    for _ in range(52):
        x = (low + high) / 2
        outside = betainc(freedom / 2, 0.5, 0, x, regularized=True)
        low, high = (low, x) if outside > 1 - level else (x, high)
    return math.sqrt(freedom * (1 - high) / high)


def _jackknife(without: np.ndarray) -> float:
    """Return the variance of a statistic of all networks, from its values without each of them; 0 of one network."""
    networks = len(without)
    return float(np.square(without - without.mean()).sum()) * (networks - 1) / networks if networks else 0.0
