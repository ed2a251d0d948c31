"""The picture of a sweep: the metric over the swept param, a point for each run, the mean and spread of each value."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from stages.plot.defaults import Axes, Figure, FigureCanvasAgg, NullLocator
from stages.plot.figure import image_of, short_label
from tools.sweep.summary import Value

DPI = 100
MOST_TICKS = 12  # beyond these, matplotlib chooses numbers of its own
MOST_CHARACTERS = 60  # side by side, below the axis


def draw_sweep(values: Sequence[Value], key: str, metric: str) -> Image.Image:
    """Return the picture of the values that have results; those that are not numbers stand side by side."""
    figure = Figure(dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    axes = sweep_axes(figure, [value for value in values if value.results], key, metric)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    canvas.draw()
    return image_of(canvas)


def sweep_axes(figure: Figure, values: Sequence[Value], key: str, metric: str) -> Axes:
    """Return the axes of the figure, on which the values are drawn."""
    axes = figure.add_subplot(title=short_label(f"{metric} over {key}", 60))
    axes.set(xlabel=short_label(key, 60), ylabel=short_label(metric, 40))
    numbers = [value.number for value in values if value.number is not None]
    is_numeric = len(numbers) == len(values)
    places = np.array(numbers) if is_numeric else np.arange(len(values))
    runs = [(place, result) for place, value in zip(places, values, strict=True) for result in value.results.values()]
    axes.plot(*zip(*runs, strict=True), "o", color="C0", alpha=0.5, label="one run")
    spreads = np.nan_to_num([value.spread for value in values])
    axes.errorbar(
        places,
        [value.mean for value in values],
        spreads,
        fmt="_-" if is_numeric else "_",
        color="black",
        markersize=14,
        capsize=5,
        linewidth=1,
        label="mean ± standard deviation" if spreads.any() else "mean",
    )
    results = np.array([result for _, result in runs])
    if results.min() > 0 and results.max() / results.min() > 30:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:.9g}")
    if is_numeric and calls_for_log(places):
        axes.set_xscale("log")  # late: on a logarithmic axis, errorbar would place its data wrongly
    axes.margins(x=0.1)
    labels = [short_label(value.shown, 16) for value in values]
    if not is_numeric or len(labels) <= MOST_TICKS:
        axes.set_xticks(places, labels)
        axes.xaxis.set_minor_locator(NullLocator())
    if sum(map(len, labels)) > MOST_CHARACTERS:
        axes.tick_params("x", rotation=30)
    axes.legend()
    return axes


def calls_for_log(numbers: np.ndarray) -> bool:
    """Return whether numbers are spaced more evenly on a logarithmic axis; two are if they differ tenfold."""
    numbers = np.unique(numbers)
    if numbers[0] <= 0 or len(numbers) < 2:
        return False
    if len(numbers) == 2:
        return bool(numbers[1] >= 10 * numbers[0])

    def unevenness(places: np.ndarray) -> float:
        gaps = np.diff(places)
        return float(gaps.max() / gaps.min())

    return unevenness(np.log(numbers)) < unevenness(numbers)
