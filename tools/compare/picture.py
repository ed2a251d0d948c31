"""The picture of a comparison: for each metric the value of each training, with the interval of its change."""

import re

import numpy as np
from PIL import Image

from stages.plot.defaults import Axes, Figure, FigureCanvasAgg
from stages.plot.figure import image_of, short_label
from tools.compare.change import BETTER, LEVEL, WORSE
from tools.compare.table import Comparison

DPI = 100
COLORS = {BETTER: "tab:green", WORSE: "tab:red"}
MOST_WITH_PARAMS = 3  # revisions that have their params below their names
MOST_CHARACTERS = 50  # side by side, below the axis


def draw(comparison: Comparison) -> Image.Image:
    """Return the picture, a panel for each metric."""
    figure = Figure(figsize=(9.6, 4.8), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    for number, metric in enumerate(comparison.values, 1):
        draw_metric(figure.add_subplot(1, len(comparison.values), number), comparison, metric)
    figure.tight_layout()
    canvas.draw()
    return image_of(canvas)


def draw_metric(axes: Axes, comparison: Comparison, metric: str) -> None:
    """Draw the values of a metric; an interval that leaves out the line of the first training is more than chance."""
    values, changes = comparison.values[metric], comparison.changes[metric]
    axes.axhline(values[0], color="dimgrey", linestyle="--", linewidth=1)
    axes.plot([0], values[:1], "o", color="dimgrey")
    for place, (value, its) in enumerate(zip(values[1:], changes, strict=True), 1):
        color = COLORS.get(its.verdict, "dimgrey")
        low, high = (value if np.isnan(edge) else values[0] * (1 + edge) for edge in (its.low, its.high))
        axes.errorbar([place], [value], [[value - low], [high - value]], fmt="o", color=color, capsize=5)
    axes.set_title(f"test_{metric}, intervals {LEVEL:.0%}")
    labels = [short_label(name, 20) for name in comparison.names]
    for place, (*_, params) in enumerate(comparison.params[1:]):
        without_sections = re.sub(r"\w+\.(?=[a-z_])", "", params)
        labels[place] += f"\n{short_label(without_sections, 18)}" if len(labels) <= MOST_WITH_PARAMS else ""
    axes.set_xticks(range(len(labels)), labels)
    if sum(map(len, comparison.names)) > MOST_CHARACTERS:
        axes.tick_params("x", rotation=30)
    axes.margins(x=0.15)
    axes.grid(axis="y", alpha=0.3)
