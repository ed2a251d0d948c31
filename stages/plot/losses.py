"""The picture of the loss of every epoch, and of the validation loss and the learning rate where there are any."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from stages.plot.defaults import Axes, Figure, FigureCanvasAgg, LogLocator, MaxNLocator
from stages.plot.figure import image_of


def draw_losses(table: Mapping[str, np.ndarray], dpi: int, *, classes: bool = False) -> Image.Image:
    """Return a picture of the columns of a loss table, each (epochs,); of classes they are cross-entropies."""
    canvas, _ = loss_axes(table, dpi, "cross-entropy loss" if classes else "loss")
    return image_of(canvas)


def loss_axes(table: Mapping[str, np.ndarray], dpi: int, y_label: str = "loss") -> tuple[FigureCanvasAgg, Axes]:
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
    several = "loss_std" in table
    of_networks = ": mean ± std of the networks" if several else ""
    axes.set(title=f"Training loss{of_networks}", ylabel=y_label)
    figure.axes[-1].set(xlabel="epoch")
    marker = "o" if len(table["loss"]) == 1 else ""
    shown = []  # all that is drawn on the axis of the losses
    for name, label in (("loss", "training"), ("validation_loss", "validation")):
        if name in table:
            (line,) = axes.plot(table[name], marker=marker, label=label)
            shown.append(table[name])
            if several:
                edges = band(table[name], table[f"{name}_std"])
                axes.fill_between(range(len(edges[0])), *edges, color=line.get_color(), alpha=0.25, linewidth=0)
                shown.extend(edges)
    if "validation_loss" in table:
        axes.set(title=f"Training and validation loss{of_networks}")
        if not several:  # of which each keeps the weights of an epoch of its own
            kept = table["validation_loss"].argmin()
            axes.axvline(kept, color="grey", linestyle=":", label=f"weights kept: epoch {kept}")
        axes.legend()
    losses = np.concatenate(shown)
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


def band(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a band around losses, each (epochs,): a standard deviation up, and down by the same factor.

    On the logarithmic axis it is as high above the mean as below it. The mean less the standard deviation would often
    be negative, since losses of networks are skewed.
    """
    upper = mean + std
    factor = np.divide(mean, upper, out=np.ones_like(mean), where=upper > 0)
    return mean * factor, upper
