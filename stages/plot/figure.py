"""Figures: one panel, or a grid of small ones, labelled with names as they stand in the header of a table."""

import math
import unicodedata
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
from PIL import Image

from stages.plot.defaults import AutoDateLocator, Axes, ConciseDateFormatter, Figure, FigureCanvasAgg, rcParams
from stages.plot.fonts import drawn

MAX_PANELS = 12
rcParams["text.parse_math"] = False  # a $ in a name is a $


def title_of(title: str, panels: int, what: str) -> str:
    """Return the title; with more than MAX_PANELS panels, say how many are shown: `…: first 12 of 30 targets`."""
    return title if panels <= MAX_PANELS else f"{title}: first {MAX_PANELS} of {panels} {what}"


def short_label(name: str, longest: int) -> str:
    """Return the name on one line, its middle cut if it is wider than `longest` Latin characters.

    Chinese, Japanese and Korean characters count twice; □ stands for what no font has.
    """
    line = "".join(character if drawn(character) else "□" for character in " ".join(name.split()))
    if sum(map(_width, line)) <= longest:
        return line
    half = longest // 2
    return f"{_start(line, half - 1)}…{_start(line[::-1], half)[::-1]}"


def _start(line: str, longest: int) -> str:
    """Return as many of the first characters of a line as are not wider than `longest`."""
    return line[: sum(width <= longest for width in accumulate(map(_width, line)))]


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def opacity(points: int) -> float:
    """Return how opaque to draw each of so many points, so that dense regions look darker."""
    return min(1.0, 400 / points)


def new_panels(
    title: str, x_labels: Sequence[str], y_labels: Sequence[str], dpi: int
) -> tuple[FigureCanvasAgg, list[Axes]]:
    """Return the canvas of a new figure of 6.4 × 4.8 inches, and a panel for each pair of labels.

    A label that all panels of a grid share is written once.
    """
    figure = Figure(dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    if len(x_labels) == 1:
        labels = {"xlabel": short_label(x_labels[0], 32), "ylabel": short_label(y_labels[0], 32)}
        return canvas, [figure.add_subplot(title=title, **labels)]
    figure.set_layout_engine("constrained", rect=(0, 0, 0.99, 0.93))
    figure.suptitle(title, x=0.02, y=0.98, ha="left")
    columns = math.ceil(math.sqrt(len(x_labels)))
    rows = math.ceil(len(x_labels) / columns)
    panels = [figure.add_subplot(rows, columns, place) for place in range(1, len(x_labels) + 1)]
    for panel, x_label, y_label in zip(panels, x_labels, y_labels, strict=True):
        panel.ticklabel_format(scilimits=(-3, 4))
        panel.tick_params(labelsize=7)
        for axis in (panel.xaxis, panel.yaxis):
            axis.get_offset_text().set_fontsize(7)  # the 1e6 at the end of an axis
        if len(set(x_labels)) > 1:
            panel.set_xlabel(short_label(x_label, 16), size=8, labelpad=10)  # beneath the offset
        if len(set(y_labels)) > 1:
            panel.set_ylabel(short_label(y_label, 16), size=8)
    if len(set(x_labels)) == 1:
        figure.supxlabel(short_label(x_labels[0], 32), size=10)
    if len(set(y_labels)) == 1:
        figure.supylabel(short_label(y_labels[0], 32), size=10)
    return canvas, panels


def show_dates(panel: Axes) -> None:
    """Label the horizontal axis, in days since 1970-01-01, with dates."""
    most = max(5, round(10 * panel.get_position().width))  # with fewer than 5, the locator has no step for two months
    ticks = AutoDateLocator(minticks=2, maxticks=most)
    panel.xaxis.set_major_locator(ticks)
    panel.xaxis.set_major_formatter(ConciseDateFormatter(ticks))


def draw(canvas: FigureCanvasAgg) -> None:
    """Draw the figure; if an axis label of its only panel is cut off, make room and draw it again."""
    canvas.draw()
    panel, *others = canvas.figure.axes
    left, below = panel.yaxis.label.get_window_extent().x0, panel.xaxis.label.get_window_extent().y0
    if not others and min(left, below) < 0:
        canvas.figure.tight_layout()
        canvas.draw()


def image_of(canvas: FigureCanvasAgg) -> Image.Image:
    """Return a copy of what the canvas shows, RGB."""
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
