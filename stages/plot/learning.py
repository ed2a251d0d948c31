"""The pictures of the network as it learns."""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from stages.columns import Columns
from stages.history import INTERVAL, Snapshots
from stages.plot.defaults import Axes, Figure, LineCollection, withStroke
from stages.plot.figure import MAX_PANELS, draw, image_of, new_panels, opacity, show_dates, title_of

HALO = withStroke(linewidth=3, foreground="white")  # keeps red text readable over blue points
SHADES = 18  # of a blend of two inks, both among them
SHADE = 4 / (SHADES - 1)  # the opacity of intervals, which makes blue on white a colour of the palette
PAPER, AXES, POINTS, PREDICTION = (255, 255, 255), (0, 0, 0), (31, 119, 180), (255, 0, 0)  # the inks


def draw_learning(snapshots: Snapshots, columns: Columns, dpi: int) -> Iterator[Image.Image]:
    """Yield a picture of each snapshot, in the colours of `palette`: a panel for each target, and the loss.

    If x has one column, a panel shows the points, and the prediction as a red line; of several networks, their mean,
    and each of them as a thin line. If x has more columns, a panel shows the predictions as red points over the true
    values, and on top of them the blue diagonal, where both are equal.
    Where half-widths of intervals are known, they are shaded: around the diagonal, or around the last prediction.
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
    write_notes(canvas.figure, panels, snapshots)
    dot, width = ("o", 5) if len(panels) == 1 else (".", 2)
    lines = []
    for target, panel in enumerate(panels):
        y = snapshots.y[:, target]
        x = columns.features[0].on_axis(snapshots.x) if is_curve else y
        order = np.argsort(x, kind="stable")
        x, y, predictions = x[order], y[order], snapshots.predictions[:, order, target]  # (m,), (m,), (k, m)
        dense = opacity(len(x))
        if is_curve:
            (truth,) = panel.plot(x, y, dot, color="C0", alpha=dense)
        else:
            (truth,) = panel.plot(x, y, "-", color="C0", animated=True)
        if is_curve and columns.features[0].kind == "date":
            show_dates(panel)
        of_networks = snapshots.networks[..., target] if is_curve and snapshots.networks is not None else None
        shown = predictions if of_networks is None else np.append(predictions, of_networks[-1])
        panel.set(xlim=panel.get_xlim(), ylim=y_limits(y, shown))
        if snapshots.half_widths is not None:
            middle, half_width = predictions[-1] if is_curve else x, snapshots.half_widths[target]
            panel.fill_between(x, middle - half_width, middle + half_width, color="C0", alpha=SHADE, linewidth=0)
        threads = None if of_networks is None else Threads(panel, x, order, of_networks, width / 5)
        (line,) = panel.plot(x, predictions[0], color="red", linewidth=width, animated=True)
        if not is_curve or len(x) == 1:
            line.set(linestyle="", marker=".", alpha=dense)
        lines.append((threads, line, predictions, truth))
    place = label_place(panels[0], is_curve) if len(panels) == 1 else {"x": 0.98, "y": 0.98, "ha": "right", "va": "top"}
    label = canvas.figure.text(**place, s="", color="red", size=20, path_effects=[HALO], animated=True)
    draw(canvas)
    background = canvas.copy_from_bbox(canvas.figure.bbox)
    for index, loss in enumerate(snapshots.losses):
        canvas.restore_region(background)
        for panel, (threads, line, predictions, truth) in zip(panels, lines, strict=True):
            if threads:
                threads.draw(index)
            line.set_ydata(predictions[index])
            panel.draw_artist(line)
            if not is_curve:
                panel.draw_artist(truth)
        label.set_text(loss_label(loss))
        panels[-1].draw_artist(label)
        yield image_of(canvas).quantize(palette=palette(), dither=Image.Dither.NONE)


class Threads:
    """The predictions of several networks in a panel, as thin lines: the more there are, the more transparent."""

    def __init__(self, panel: Axes, x: np.ndarray, order: np.ndarray, predictions: np.ndarray, width: float) -> None:
        """Prepare to draw predictions, (k, networks, m), in this order, (m,), over x, (m,), which is in order."""
        self.panel, self.x, self.order, self.predictions = panel, x, order, predictions
        alpha = min(0.6, max(0.15, 8 / predictions.shape[1]))
        self.lines = LineCollection([], colors="red", linewidths=width, alpha=alpha, animated=True)
        panel.add_collection(self.lines, autolim=False)

    def draw(self, index: int) -> None:
        """Draw those of one snapshot."""
        y = self.predictions[index][:, self.order]  # (networks, m)
        self.lines.set_segments(list(np.stack([np.broadcast_to(self.x, y.shape), y], axis=-1)))
        self.panel.draw_artist(self.lines)


def write_notes(figure: Figure, panels: list[Axes], snapshots: Snapshots) -> None:
    """Say above the panels what thin lines and shading stand for, where there are any."""
    notes = []
    if snapshots.networks is not None:
        count = snapshots.networks.shape[1]
        notes.append(f"{count} networks and their mean" if snapshots.x.shape[1] == 1 else f"mean of {count} networks")
    if snapshots.half_widths is not None:
        notes.append(f"shaded: {100 * INTERVAL:g} % of held-out errors")
    if len(panels) == 1:
        panels[0].set_title("".join(notes[:1]), loc="left", size=8)
        panels[0].set_title("".join(notes[1:]), loc="right", size=8)
    elif notes:
        figure.set_layout_engine("constrained", rect=(0, 0, 0.99, 0.9))  # makes room beneath the title
        figure.text(0.02, 0.935, "; ".join(notes), size=8, va="top")


def label_place(panel: Axes, is_curve: bool) -> dict[str, Any]:
    """Return where the label of the loss hides little: at (0.5, 0) for x on [-1, 1] if 0 is visible, else low."""
    left, right = panel.dataLim.intervalx
    low, high = panel.get_ylim()
    y = 0 if is_curve and low < 0 < high else low + 0.03 * (high - low)
    return {"x": left + 0.75 * (right - left), "y": y, "ha": "center", "transform": panel.transData}


def loss_label(loss: float) -> str:
    """Return the text that tells the loss."""
    return f"Loss={loss:.4f}" if loss < 1e6 else f"Loss={loss:.4e}"


def y_limits(y: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Return limits that show all points, and predictions that lie beyond them by at most the range of the points."""
    low, high = float(y.min()), float(y.max())
    height = high - low or abs(high) or 1.0
    low = max(low - height, min(low, float(predictions.min())))
    high = min(high + height, max(high, float(predictions.max())))
    return low - 0.05 * height, high + 0.05 * height


def shades(one: tuple[int, int, int], other: tuple[int, int, int]) -> np.ndarray:
    """Return the blends of two inks, from the one to the other, uint8 (SHADES, 3)."""
    return np.rint(np.linspace(one, other, SHADES)).astype(np.uint8)


@cache
def palette() -> Image.Image:
    """Return the 100 colours of the learning sequence: the blends of any two inks."""
    blends = [shades(*pair) for pair in itertools.combinations((PAPER, AXES, POINTS, PREDICTION), 2)]
    image = Image.new("P", (1, 1))
    image.putpalette(np.unique(np.concatenate(blends), axis=0).tobytes())
    return image
