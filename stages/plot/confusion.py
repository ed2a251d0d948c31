"""The pictures of a network as it learns to tell classes apart."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from stages.columns import Columns
from stages.history import Snapshots
from stages.plot.classes import most_frequent
from stages.plot.defaults import Axes, Figure, FigureCanvasAgg
from stages.plot.figure import draw, image_of, short_label
from stages.plot.learning import HALO, PAPER, POINTS, PREDICTION, SHADES, loss_label, palette, shades

MOST_CLASSES = 100
MOST_TICKS = 30
LINES = [240 / 255] * 3  # between the cells, a grey of the palette
LEGIBLE = 6  # pixels, the least size of a number


def draw_confusions(snapshots: Snapshots, columns: Columns, dpi: int) -> Iterator[Image.Image]:
    """Yield a picture of each snapshot, in the colours of `palette`: a confusion matrix, and the loss.

    A row is a class, a column is what the network takes its points for: the class that it gives the highest
    probability. The more of them, the darker the cell: blue where that is right, red where it is wrong. Where there is
    room, they are written as a percentage.
    The axes are drawn once and restored for each picture.
    """
    kept = most_frequent(snapshots.y, MOST_CLASSES)
    canvas, panel = new_matrix([columns.classes[index] for index in kept], columns, dpi)
    write_notes(canvas.figure, snapshots)
    cells = panel.imshow(np.zeros((len(kept), len(kept), 3)), aspect="auto", interpolation="nearest", animated=True)
    edges, ends = np.arange(len(kept) + 1) - 0.5, (-0.5, len(kept) - 0.5)
    lines = [panel.hlines(edges, *ends), panel.vlines(edges, *ends)] if len(kept) <= MOST_TICKS else []
    for between in lines:
        between.set(color=LINES, linewidth=1.5, animated=True)
    number = panel.text(0, 0, "", ha="center", va="center_baseline", animated=True)
    label = canvas.figure.text(
        0.98, 0.98, "", ha="right", va="top", color="red", size=20, path_effects=[HALO], animated=True
    )
    draw(canvas)
    size = number_size(panel, len(kept))
    number.set_fontsize(size)
    background = canvas.copy_from_bbox(canvas.figure.bbox)
    for loss, probabilities in zip(snapshots.losses, snapshots.predictions, strict=True):
        shares = confusion(snapshots.y, probabilities)[np.ix_(kept, kept)]
        canvas.restore_region(background)
        cells.set_data(colours(shares))
        for artist in (cells, *lines):
            panel.draw_artist(artist)
        if size * dpi / 72 >= LEGIBLE:
            for row, column in np.argwhere(shares):
                number.set(x=column, y=row, text=percentage(shares[row, column]))
                number.set_color("white" if shares[row, column] > 0.65 else "black")
                panel.draw_artist(number)
        label.set_text(loss_label(loss))
        panel.draw_artist(label)
        yield image_of(canvas).quantize(palette=palette(), dither=Image.Dither.NONE)


def confusion(y: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the share of each class that is taken for each, (classes, classes); rows sum to 1, or 0 without points.

    y is one-hot, probabilities are of the same points: both (m, classes).
    """
    taken_for = probabilities.argmax(axis=1)[:, None] == np.arange(y.shape[1])  # (m, classes)
    counts = y.T.astype(np.float64) @ taken_for
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def colours(shares: np.ndarray) -> np.ndarray:
    """Return the colour of each cell of a confusion matrix, uint8 (…, 3); any share but 0 is seen."""
    steps = np.ceil(shares * (SHADES - 1)).astype(int)
    right = np.eye(len(shares), dtype=bool)[:, :, None]
    return np.where(right, shades(PAPER, POINTS)[steps], shades(PAPER, PREDICTION)[steps])


def percentage(share: float) -> str:
    """Return a share in percent, which is 0 or 100 only where it is exactly that."""
    return f"{100 * share if share in (0, 1) else min(max(100 * share, 1), 99):.0f}"


def new_matrix(names: Sequence[str], columns: Columns, dpi: int) -> tuple[FigureCanvasAgg, Axes]:
    """Return the canvas of a new figure, and its axes, on which 0, 1, … are classes; of many, some are named."""
    figure = Figure(dpi=dpi)
    figure.set_layout_engine("constrained", rect=(0, 0, 0.99, 0.88))  # leaves room above for the title and the loss
    canvas = FigureCanvasAgg(figure)
    of_all = f": {len(names)} of {len(columns.classes)} classes" if len(names) < len(columns.classes) else ""
    figure.suptitle(f"Learning{of_all}", x=0.02, y=0.98, ha="left")
    (target,) = columns.target_names
    panel = figure.add_subplot(xlabel=short_label(f"predicted {target}", 32), ylabel=short_label(f"true {target}", 32))
    ticks = range(0, len(names), math.ceil(len(names) / MOST_TICKS))
    size = 8 if len(names) <= 15 else 6
    labels = [short_label(names[tick], 14) for tick in ticks]
    panel.set_yticks(ticks, labels, size=size)
    panel.set_xticks(ticks, labels, size=size, rotation=90 if max(map(len, labels)) * len(labels) > 400 / size else 0)
    panel.tick_params(length=0)
    panel.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5))
    panel.spines[:].set_visible(False)
    return canvas, panel


def write_notes(figure: Figure, snapshots: Snapshots) -> None:
    """Say beneath the title what the numbers are, which classes are shown and, of several networks, how many."""
    notes = "% of the rows of each class"
    if snapshots.y.shape[1] > MOST_CLASSES:
        notes += ", for the most frequent classes"
    if snapshots.networks is not None:
        notes += f"; mean of {snapshots.networks.shape[1]} networks"
    figure.text(0.02, 0.91, notes, size=8, va="top")


def number_size(panel: Axes, classes: int) -> float:
    """Return the size of numbers, in points, that fit the cells: up to three digits, each 0.64 as wide as high."""
    inches = panel.get_window_extent().transformed(panel.figure.dpi_scale_trans.inverted())
    return min(10, 0.8 * 72 * inches.width / classes / (3 * 0.64), 0.7 * 72 * inches.height / classes)
