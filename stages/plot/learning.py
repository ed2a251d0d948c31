"""The pictures of the network as it learns."""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from stages.columns import Columns
from stages.history import Snapshots
from stages.plot.defaults import Axes, withStroke
from stages.plot.figure import MAX_PANELS, draw, image_of, new_panels, opacity, show_dates, title_of

HALO = withStroke(linewidth=3, foreground="white")  # keeps red text readable over blue points


def draw_learning(snapshots: Snapshots, columns: Columns, dpi: int) -> Iterator[Image.Image]:
    """Yield a picture of each snapshot, in the colours of `palette`: a panel for each target, and the loss.

    If x has one column, a panel shows the points, and the prediction as a red line. If it has more, a panel shows the
    predictions as red points over the true values, and on top of them the blue diagonal, where both are equal.
    What lies below the predictions is drawn once and restored for each picture.
    """
    is_curve = snapshots.x.shape[1] == 1
    targets = columns.target_names[:MAX_PANELS]
    canvas, panels = new_panels(
        title_of("Learning", len(columns.targets), "targets"),
        columns.feature_names * len(targets) if is_curve else [f"true {target}" for target in targets],
        targets if is_curve else ["prediction"] * len(targets),
        dpi,
    )
    dot, width = ("o", 5) if len(panels) == 1 else (".", 2)
    lines = []
    for panel, y, predictions in zip(panels, snapshots.y.T, np.moveaxis(snapshots.predictions, 2, 0), strict=False):
        x = columns.features[0].on_axis(snapshots.x) if is_curve else y
        order = np.argsort(x, kind="stable")
        x, y, predictions = x[order], y[order], predictions[:, order]  # (m,), (m,), (k, m)
        dense = opacity(len(x))
        if is_curve:
            (truth,) = panel.plot(x, y, dot, color="C0", alpha=dense)
        else:
            (truth,) = panel.plot(x, y, "-", color="C0", animated=True)
        if is_curve and columns.features[0].kind == "date":
            show_dates(panel)
        panel.set(xlim=panel.get_xlim(), ylim=y_limits(y, predictions))
        (line,) = panel.plot(x, predictions[0], color="red", linewidth=width, animated=True)
        if not is_curve or len(x) == 1:
            line.set(linestyle="", marker=".", alpha=dense)
        lines.append((line, predictions, truth))
    place = label_place(panels[0], is_curve) if len(panels) == 1 else {"x": 0.98, "y": 0.98, "ha": "right", "va": "top"}
    label = canvas.figure.text(**place, s="", color="red", size=20, path_effects=[HALO], animated=True)
    draw(canvas)
    background = canvas.copy_from_bbox(canvas.figure.bbox)
    for index, loss in enumerate(snapshots.losses):
        canvas.restore_region(background)
        for panel, (line, predictions, truth) in zip(panels, lines, strict=True):
            line.set_ydata(predictions[index])
            panel.draw_artist(line)
            if not is_curve:
                panel.draw_artist(truth)
        label.set_text(f"Loss={loss:.4f}" if loss < 1e6 else f"Loss={loss:.4e}")
        panels[-1].draw_artist(label)
        yield image_of(canvas).quantize(palette=palette(), dither=Image.Dither.NONE)


def label_place(panel: Axes, is_curve: bool) -> dict[str, Any]:
    """Return where the label of the loss hides little: at (0.5, 0) for x on [-1, 1] if 0 is visible, else low."""
    left, right = panel.dataLim.intervalx
    low, high = panel.get_ylim()
    y = 0 if is_curve and low < 0 < high else low + 0.03 * (high - low)
    return {"x": left + 0.75 * (right - left), "y": y, "ha": "center", "transform": panel.transData}


def y_limits(y: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Return limits that show all points, and predictions that lie beyond them by at most the range of the points."""
    low, high = float(y.min()), float(y.max())
    height = high - low or abs(high) or 1.0
    low = max(low - height, min(low, float(predictions.min())))
    high = min(high + height, max(high, float(predictions.max())))
    return low - 0.05 * height, high + 0.05 * height


@cache
def palette() -> Image.Image:
    """Return the 100 colours of the learning sequence: the blends of any two inks."""
    inks = [(255, 255, 255), (0, 0, 0), (31, 119, 180), (255, 0, 0)]  # paper, axes, points, prediction
    blends = [np.linspace(one, other, 18) for one, other in itertools.combinations(inks, 2)]
    image = Image.new("P", (1, 1))
    image.putpalette(np.unique(np.rint(np.concatenate(blends)).astype(np.uint8), axis=0).tobytes())
    return image
