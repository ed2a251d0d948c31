"""Drawing the learning sequence here beside clearing and redrawing each frame."""

import time
from functools import partial

import numpy as np

from benchmarks import process
from benchmarks.report import Quantities, Section, interleaved, table

TEXT = """\
{frames} frames of 100 points, 640 × 480 pixels, written as PNG; then once more with a GIF of them. The other way clears
the axes, draws points, line and text anew and calls `savefig` for each frame; Pillow makes the GIF of the pictures.
"""


def measure(way: str, frames: int) -> Quantities:
    """Return the frames per second without and with the GIF."""
    x = np.linspace(-1, 1, 100, dtype=np.float32)[:, None]
    y = x**2 + np.float32(0.2) * np.random.default_rng(0).random(x.shape, np.float32)
    learned = np.linspace(0, 1, frames, dtype=np.float32)[:, None, None]
    predictions = learned * x**2 + (1 - learned) * np.float32(0.4)  # (k, m, 1)
    draw, rates = {"ours": ours, "redraw": redraw}[way], []
    for count, gif in [(2, True), (frames, False), (frames, True)]:  # the first loads fonts and encoders
        start = time.perf_counter()
        draw(x, y, predictions[:count], gif)
        rates.append(count / (time.perf_counter() - start))
    return {"pictures": rates[1], "pictures and GIF": rates[2]}


def ours(x: np.ndarray, y: np.ndarray, predictions: np.ndarray, gif: bool) -> None:
    """Draw as the stage `plot` does."""
    from stages.columns import unnamed
    from stages.history import Snapshots
    from stages.plot import pictures
    from stages.plot.learning import draw_learning

    losses, frames = np.square(predictions - y).mean(axis=(1, 2)), []
    snapshots = Snapshots(np.arange(len(losses)), losses, x, y, predictions)
    for epoch, picture in enumerate(draw_learning(snapshots, unnamed(1, 1), dpi=100)):
        pictures.write_picture(f"{epoch}.png", picture)
        if gif:
            frames.append(picture)
    if gif:
        pictures.write_animation("learning.gif", frames, 0.1)


def redraw(x: np.ndarray, y: np.ndarray, predictions: np.ndarray, gif: bool) -> None:
    """Clear and draw everything for each frame."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for epoch, prediction in enumerate(predictions):
        axes.clear()
        axes.scatter(x[:, 0], y[:, 0])
        axes.plot(x[:, 0], prediction[:, 0], "r-", linewidth=5)
        axes.text(0.5, 0, f"Loss={np.square(prediction - y).mean():.4f}", color="red", size=20)
        figure.savefig(f"{epoch}.png")
    if gif:
        first, *others = [Image.open(f"{epoch}.png") for epoch in range(len(predictions))]
        first.save("learning.gif", save_all=True, append_images=others, duration=100, loop=0)


def run(quick: bool) -> Section:
    """Measure and report."""
    frames = 12 if quick else 100
    calls = {way: partial(process.call, measure, way=way, frames=frames) for way in ("ours", "redraw")}
    mine, theirs = interleaved("plots", 1 if quick else 5, calls).values()
    ratios = {what: f"× {mine[what] / theirs[what]:.2f}" for what in mine}
    rows = [[what, f"{mine[what]:.1f}", f"{theirs[what]:.1f}", ratio] for what, ratio in ratios.items()]
    said = ", ".join(f"{ratio} as fast ({what})" for what, ratio in ratios.items())
    head = ["frames per second", "ours", "clear and redraw", "ours / theirs"]
    return Section(
        "Plots", [f"Drawing, beside clear and redraw: {said}."], f"{TEXT.format(frames=frames)}\n{table(head, rows)}"
    )
