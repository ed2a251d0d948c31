"""What a comparison says: the params that differ, each metric with its change, and what cannot be known, in words."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.residuals import Residuals
from stages.runtime.errors import UserError, counted
from tools.compare.change import LEVEL, SAME, UNKNOWN, Change, change, standard_error
from tools.compare.sides import Side

Cells = list[list[str]]
MOST_PARAMS = 6  # that differ, shown of a revision
FEW_NETWORKS = 10  # with fewer, only large differences are more than chance
WIDTH = 120  # of a line of words
MISSING = "–"


@dataclass(frozen=True)
class Comparison:
    """Several trainings, of which the first is what the others are compared with."""

    names: list[str]
    params: Cells  # a line of heads, then one for each training
    metrics: Cells
    notes: list[str]
    values: dict[str, list[float]]  # of each metric, a value for each training
    changes: dict[str, list[Change]]  # of each metric, one for each training but the first
    comparable: bool  # whether any of the others predicts the same test rows as the first


def compare(sides: Sequence[Side]) -> Comparison:
    """Return the comparison of all sides with the first. Raises UserError unless all predict classes, or none does."""
    first, *others = sides
    for side in others:
        if side.errors.overall.keys() != first.errors.overall.keys():
            raise UserError(f"{side.name}: one of it and {first.name} predicts classes, the other amounts")
    unlike = {side.name: reason for side in others if (reason := other_rows(first.errors, side.errors))}
    comparisons = len(others) - len(unlike)
    metrics = [["metric", "revision", "value ± standard error", "change", f"{LEVEL:.0%} interval", "verdict"]]
    changes: dict[str, list[Change]] = {}
    for metric in first.errors.overall:
        changes[metric] = [
            Change(UNKNOWN) if side.name in unlike else change(first.errors, side.errors, metric, comparisons)
            for side in others
        ]
        for side, its in zip(sides, [None, *changes[metric]], strict=True):
            value = f"{side.errors.overall[metric]:.4g}"
            error = standard_error(side.errors, metric)
            uncertain = value if math.isnan(error) else f"{value} ± {error:.2g}"
            metrics.append([f"test_{metric}", side.name, uncertain, *(_cells(its) if its else ["", "", ""])])
    values = {metric: [side.errors.overall[metric] for side in sides] for metric in first.errors.overall}
    notes = [
        *_about_rows(first, unlike),
        *(_about_networks(sides, changes) if comparisons else []),
        *_about_several(comparisons),
    ]
    return Comparison(
        [side.name for side in sides], params_that_differ(sides), metrics, notes, values, changes, comparisons > 0
    )


def other_rows(old: Residuals, new: Residuals) -> str:
    """Return why two trainings do not predict the same test rows, "" if they do."""
    if old.targets != new.targets:
        return "predicts other targets"
    if old.table != new.table:
        return "has test rows of another table"
    if old.n != new.n or not np.array_equal(old.rows, new.rows) or not np.array_equal(old.true, new.true):
        return "has other test rows"
    return ""


def params_that_differ(sides: Sequence[Side]) -> Cells:
    """Return a line for each side: its name, how many networks it has, and its params that are not all sides' own."""
    names = list(dict.fromkeys(name for side in sides for name in side.params))
    differ = [name for name in names if any(_param(side, name) != _param(sides[0], name) for side in sides[1:])]
    lines = [["revision", "networks", "params that differ"]]
    for side in sides:
        shown = [f"{name}={_param(side, name)}" for name in differ[:MOST_PARAMS]]
        more = [f"and {len(differ) - MOST_PARAMS} more"] if len(differ) > MOST_PARAMS else []
        lines.append([side.name, str(side.networks), ", ".join(shown + more) or "none"])
    return lines


def as_text(comparison: Comparison) -> str:
    """Return it for a terminal."""
    tables = ["\n".join(_aligned(cells)) for cells in (comparison.params, _without_repeats(comparison.metrics))]
    return "\n\n".join([*tables, *(textwrap.fill(note, WIDTH) for note in comparison.notes)]) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """Return it as Markdown."""
    tables = [
        "\n".join(f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in [head, ["---"] * len(head), *rows])
        for head, *rows in (comparison.params, comparison.metrics)
    ]
    return "\n\n".join([*tables, *map(_escaped, comparison.notes)]) + "\n"


def _param(side: Side, name: str) -> Any:
    return side.params.get(name, MISSING)


def _cells(its: Change) -> list[str]:
    percents = [MISSING if math.isnan(value) else f"{value:+.1%}" for value in (its.relative, its.low, its.high)]
    interval = MISSING if math.isnan(its.low) else f"{percents[1]} to {percents[2]}"
    rows_only = ", rows alone" if its.verdict == UNKNOWN and interval != MISSING else ""
    return ["0" if its.verdict == SAME else percents[0], f"{interval}{rows_only}", its.verdict]


def _about_rows(first: Side, unlike: dict[str, str]) -> list[str]:
    reason = "a smaller error there need not come from a better model, so there is no verdict"
    return [f"{name} {what} than {first.name}: {reason}." for name, what in unlike.items()]


def _about_networks(sides: Sequence[Side], changes: dict[str, list[Change]]) -> list[str]:
    """Return what one network, or a few, leave unknown, unless all sides predict the same."""
    if all(its.verdict == SAME for some in changes.values() for its in some):
        return []
    lonely = [side.name for side in sides if side.networks == 1]
    if lonely:
        have = "has one network" if len(lonely) == 1 else "have one network each"
        return [
            f"{' and '.join(lonely)} {have}: how much of a change is due to the seed cannot be known, so there is no "
            f"verdict. What is shown counts the choice of test rows alone. Train with `train.networks: 20`."
        ]
    fewest = min(side.networks for side in sides)
    if fewest < FEW_NETWORKS:
        few = counted(fewest, "network")
        return [f"With {few}, only a large change can be told from chance: train more networks to see smaller ones."]
    return []


def _about_several(comparisons: int) -> list[str]:
    if comparisons < 2:
        return []
    return [f"The intervals of the {comparisons} changes of a metric hold together, with {LEVEL:.0%} (Bonferroni)."]


def _without_repeats(cells: Cells) -> Cells:
    return [
        [row[0] if row[0] != before[0] else "", *row[1:]] for before, row in zip([[""], *cells], cells, strict=False)
    ]


def _aligned(cells: Cells) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
