"""The picture of the training data: each target over each feature."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from PIL import Image

from stages.columns import Columns
from stages.plot.defaults import Axes, FigureCanvasAgg, MaxNLocator
from stages.plot.figure import MAX_PANELS, draw, image_of, new_panels, opacity, short_label, show_dates, title_of


def draw_data(x: np.ndarray, y: np.ndarray, columns: Columns, dpi: int) -> Image.Image:
    """Return scatter plots of the targets in y, (m, n_output), over the features in x, (m, n_feature)."""
    canvas, _ = data_panels(x, y, columns, dpi)
    return image_of(canvas)


def data_panels(x: np.ndarray, y: np.ndarray, columns: Columns, dpi: int) -> tuple[FigureCanvasAgg, list[Axes]]:
    """Return a panel for each pair of a feature and a target, and their canvas."""
    slices = columns.slices()
    pairs = list(product(columns.features, columns.target_names))
    title = title_of("Training data", len(pairs), "features" if y.shape[1] == 1 else "pairs of feature and target")
    features, targets = zip(*pairs[:MAX_PANELS], strict=True)
    canvas, panels = new_panels(title, [feature.name for feature in features], targets, dpi)
    for panel, feature, target in zip(panels, features, targets, strict=True):
        shown = feature.on_axis(x[:, slices[feature.name]])  # (m,)
        if ticks := feature.ticks():
            name_ticks(panel, ticks)
        elif feature.kind == "date":
            show_dates(panel)
        marker = "o" if len(panels) == 1 else "."
        panel.plot(shown, y[:, columns.target_names.index(target)], marker, color="C0", alpha=opacity(len(x)))
    draw(canvas)
    return canvas, panels


def name_ticks(panel: Axes, values: Sequence[str]) -> None:
    """Label the ticks 0, 1, … of the horizontal axis with these values, or only some of them if there are many."""
    names = [short_label(value, 10) for value in values]
    width = panel.get_position().width  # as a share of the figure, which has room for 60 characters or 40 lines
    panel.set_xlim(-0.5, len(names) - 0.5)
    panel.xaxis.set_major_locator(MaxNLocator(round(40 * width), integer=True, min_n_ticks=1))
    panel.xaxis.set_major_formatter(lambda tick, _: names[int(tick)] if tick in range(len(names)) else "")
    panel.tick_params("x", rotation=90 if len("".join(names)) > 60 * width else 0)
