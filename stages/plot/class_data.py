"""The picture of training data that has classes: how often each feature has which value, coloured by class."""

import numpy as np
from PIL import Image

from stages.columns import Columns, Feature
from stages.plot.classes import most_frequent
from stages.plot.data import name_ticks
from stages.plot.defaults import Axes, FigureCanvasAgg, MaxNLocator
from stages.plot.figure import MAX_PANELS, draw, image_of, new_panels, short_label, show_dates, title_of

MAX_COLOURS = 10  # of matplotlib's cycle
OTHERS = "0.85"  # grey, for the classes that have no colour
BINS = 25


def draw_class_data(x: np.ndarray, y: np.ndarray, columns: Columns, dpi: int) -> Image.Image:
    """Return stacked histograms of the features in x, (m, n_feature), by class: y is one-hot, (m, classes)."""
    canvas, _ = class_data_panels(x, y, columns, dpi)
    return image_of(canvas)


def class_data_panels(x: np.ndarray, y: np.ndarray, columns: Columns, dpi: int) -> tuple[FigureCanvasAgg, list[Axes]]:
    """Return a panel for each feature, and their canvas, with a legend of the classes."""
    features, slices = columns.features[:MAX_PANELS], columns.slices()
    title = title_of("Training data", len(columns.features), "features")
    canvas, panels = new_panels(title, [feature.name for feature in features], ["rows"] * len(features), dpi)
    groups = groups_of(y, columns.classes)
    for panel, feature in zip(panels, features, strict=True):
        stack(panel, feature, feature.on_axis(x[:, slices[feature.name]]), [rows for rows, _, _ in groups])
        for drawn, (_, _, colour) in zip(panel.patches, groups, strict=True):
            drawn.set_color(colour)
    if len(panels) == 1:
        canvas.figure.set_layout_engine("constrained")
    labels = [label for _, label, _ in groups]
    (target,) = columns.target_names
    canvas.figure.legend(
        panels[0].patches,
        labels,
        title=short_label(target, 16),
        loc="outside right upper",
        fontsize=8,
        title_fontsize=8,
        handlelength=1,
    )
    draw(canvas)
    return canvas, panels


def groups_of(y: np.ndarray, classes: list[str]) -> list[tuple[np.ndarray, str, str]]:
    """Return the rows, bool (m,), the label and the colour of each class; if they are many, of all rare ones as one."""
    few = len(classes) <= MAX_COLOURS
    shown = most_frequent(y, MAX_COLOURS if few else MAX_COLOURS - 1)
    groups = [(y[:, index] == 1, short_label(classes[index], 16), f"C{place}") for place, index in enumerate(shown)]
    if not few:
        groups.append((~y[:, shown].any(axis=1), f"and {len(classes) - len(shown)} more", OTHERS))
    return groups


def stack(panel: Axes, feature: Feature, values: np.ndarray, groups: list[np.ndarray]) -> None:
    """Draw how many rows of each group, bool (m,), have which values, (m,), on top of each other."""
    if ticks := feature.ticks():
        edges = np.arange(len(ticks) + 1) - 0.5
    else:
        edges = bin_edges(values[~np.isnan(values)].astype(np.float64))
    below = np.zeros(len(edges) - 1)
    for group in groups:
        above = below + np.histogram(values[group & ~np.isnan(values)].astype(np.float64), edges)[0]
        panel.stairs(above, edges, baseline=below, fill=True)
        below = above
    panel.set_ylim(0, 1.05 * max(below.max(), 1))
    panel.yaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    if ticks:
        name_ticks(panel, ticks)
    elif feature.kind == "date":
        show_dates(panel)
    elif (np.diff(edges) == 1).all():  # a bin for each whole number
        panel.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Return the edges of the bins of a histogram of float64 values, (n,): one for each of a few whole numbers."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    if high - low < BINS and (values == np.rint(values)).all() and abs(low) < 2**24:
        return np.arange(low, high + 2) - 0.5
    width = (high - low) or abs(low) or 1.0
    return np.linspace(low, high, BINS + 1) if low < high else low + width * np.array([-0.5, 0.5])
