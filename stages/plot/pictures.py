"""The pictures: the training data, the loss curve, the network as it learns."""

import itertools
from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
from PIL import Image

from stages import files
from stages.history import Snapshots
from stages.plot.defaults import matplotlib_defaults

with matplotlib_defaults():
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import LogLocator, MaxNLocator

HALO = withStroke(linewidth=3, foreground="white")  # keeps red text readable over blue points


def new_axes(dpi: int, **properties: object) -> tuple[FigureCanvasAgg, Axes]:
    """Return the axes of a new figure of 6.4 × 4.8 inches, and the canvas that draws it."""
    figure = Figure(dpi=dpi)
    return FigureCanvasAgg(figure), figure.add_subplot(**properties)


def image_of(canvas: FigureCanvasAgg) -> Image.Image:
    """Return a copy of what the canvas shows, RGB."""
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def x_label(x: np.ndarray) -> str:
    """Return the label of the horizontal axis, which shows the only or the first column of x, (m, n_feature)."""
    return "x" if x.shape[1] == 1 else "first column of x"


def draw_data(x: np.ndarray, y: np.ndarray, dpi: int) -> Image.Image:
    """Return a scatter plot of y, (m, n_output), over the first column of x, (m, n_feature)."""
    canvas, axes = new_axes(dpi, title="Training data", xlabel=x_label(x), ylabel="y")
    axes.plot(x[:, 0], y, "o", color="C0")
    canvas.draw()
    return image_of(canvas)


def draw_losses(losses: np.ndarray, dpi: int) -> Image.Image:
    """Return a picture of the loss curve of the losses, (epochs,)."""
    canvas, _ = loss_axes(losses, dpi)
    return image_of(canvas)


def loss_axes(losses: np.ndarray, dpi: int) -> tuple[FigureCanvasAgg, Axes]:
    """Return the axes of the loss curve and their canvas. The scale is logarithmic, with losses of 0 out of sight."""
    canvas, axes = new_axes(dpi, title="Training loss", xlabel="epoch", ylabel="loss")
    axes.plot(losses, marker="o" if len(losses) == 1 else "")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    positive = losses[losses > 0]
    if len(positive):
        steps = (1, 2, 5) if positive.max() / positive.min() < 1e3 else (1,)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=steps))  # or even steps if it finds fewer than two
        axes.yaxis.set_major_formatter("{x:.9g}")
        axes.yaxis.set_minor_formatter("")
    axes.grid(which="both", alpha=0.3)
    canvas.figure.tight_layout()  # labels can be wide
    canvas.draw()
    return canvas, axes


def draw_learning(snapshots: Snapshots, dpi: int) -> Iterator[Image.Image]:
    """Yield a picture of each snapshot, in the colours of `palette`: points, prediction as a red line, loss.

    With several features the prediction is drawn as red points, since it is not a curve over the first feature.
    The axes and the data points are drawn once and restored for each picture; only prediction and loss are redrawn.
    """
    order = np.argsort(snapshots.x[:, 0], kind="stable")
    x, y, predictions = snapshots.x[order, 0], snapshots.y[order], snapshots.predictions[:, order]
    canvas, axes = new_axes(dpi, title="Learning", xlabel=x_label(snapshots.x), ylabel="y")
    axes.plot(x, y, "o", color="C0")
    axes.set(xlim=axes.get_xlim(), ylim=y_limits(y, predictions))
    style = "-" if snapshots.x.shape[1] == 1 else "."
    lines = axes.plot(x, predictions[0], style, color="red", linewidth=5, animated=True)
    place = np.interp(0.75, [0, 1], x[[0, -1]]), np.clip(0, *axes.get_ylim())  # (0.5, 0) for x on [-1, 1]
    label = axes.text(*place, "", color="red", size=20, ha="center", path_effects=[HALO], animated=True)
    canvas.draw()
    background = canvas.copy_from_bbox(axes.figure.bbox)
    for loss, prediction in zip(snapshots.losses, predictions, strict=True):
        canvas.restore_region(background)
        for line, column in zip(lines, prediction.T, strict=True):
            line.set_ydata(column)
            axes.draw_artist(line)
        label.set_text(f"Loss={loss:.4f}")
        axes.draw_artist(label)
        yield image_of(canvas).quantize(palette=palette(), dither=Image.Dither.NONE)


def y_limits(y: np.ndarray, predictions: np.ndarray) -> tuple[float, float]:
    """Return limits that show all points, and the predictions that are no further off than the points' own height."""
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


def write_picture(path: str, image: Image.Image) -> None:
    """Write the image as a lightly compressed PNG: faster than Pillow's default, and a fifth larger."""
    with files.writing(path) as file:
        image.save(file, "PNG", compress_level=1)


def write_each(paths: list[str], images: Iterator[Image.Image]) -> Iterator[Image.Image]:
    """Write each image to its path, and yield it, as it is requested."""
    for path, image in zip(paths, images, strict=True):
        write_picture(path, image)
        yield image


def write_animation(path: str, frames: Iterable[Image.Image], seconds: float) -> None:
    """Write the frames as a GIF that repeats forever and shows each frame for so many seconds, rounded to 0.01 s.

    Pillow merges equal frames in a row into one, shown for the sum of their times, which must be at most 655.35 s. The
    GIF is not optimized: that would take fourteen times as long, for a quarter of the size.
    """
    frames = iter(frames)
    options = {"duration": seconds * 1000, "loop": 0, "optimize": False}
    with files.writing(path) as file:
        next(frames).save(file, "GIF", save_all=True, append_images=frames, **options)
