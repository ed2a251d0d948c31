"""The picture of the loss of every epoch, and of the validation loss and the learning rate where there are any."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from stages.plot.defaults import Axes, Figure, FigureCanvasAgg, LogLocator, MaxNLocator
from stages.plot.figure import image_of


def draw_losses(table: Mapping[str, np.ndarray], dpi: int) -> Image.Image:
    """Return a picture of the columns of a loss table, each (epochs,)."""
    canvas, _ = loss_axes(table, dpi)
    return image_of(canvas)


def loss_axes(table: Mapping[str, np.ndarray], dpi: int) -> tuple[FigureCanvasAgg, Axes]:
    """Return a canvas and the axes of the loss curves on it; on their logarithmic scale, losses of 0 are not shown.

    Below them is the learning rate, if it changes.
    """
    figure = Figure(dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    rate = table.get("learning_rate", np.zeros(1))
    rows = 2 if np.ptp(rate) else 1
    axes, *beneath = figure.subplots(rows, sharex=True, height_ratios=(5, 1)[:rows], squeeze=False).flat
    for below in beneath:
        below.plot(rate, color="C2")
        below.set(ylabel="learning\nrate", ylim=(0, None))
    axes.set(title="Training loss", ylabel="loss")
    figure.axes[-1].set(xlabel="epoch")
    marker = "o" if len(table["loss"]) == 1 else ""
    axes.plot(table["loss"], marker=marker, label="training")
    losses = table["loss"]
    if "validation_loss" in table:
        validation = table["validation_loss"]
        losses = np.append(losses, validation)
        kept = validation.argmin()
        axes.plot(validation, marker=marker, label="validation")
        axes.axvline(kept, color="grey", linestyle=":", label=f"weights kept: epoch {kept}")
        axes.set(title="Training and validation loss")
        axes.legend()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    positive = losses[losses > 0]
    if len(positive):
        steps = (1, 2, 5) if positive.max() / positive.min() < 1e3 else (1,)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=steps))  # or even steps if it finds fewer than two
        axes.yaxis.set_major_formatter("{x:.9g}")
        axes.yaxis.set_minor_formatter("")
    for panel in figure.axes:
        panel.grid(which="both", alpha=0.3)
    figure.tight_layout()  # labels can be wide
    canvas.draw()
    return canvas, axes
