import io
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from stages.columns import Columns, Date, Number, unnamed
from stages.history import Snapshots
from stages.plot import learning
from stages.plot.figure import new_panels, opacity

pytestmark = pytest.mark.slow  # it draws many pictures

RED = (255, 0, 0)


def snapshots(n_feature: int = 1, n_output: int = 1, scale: float = 1.0) -> Snapshots:
    """Return four snapshots of a line that bends into a parabola, each target a flatter one, on unordered points."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, (60, n_feature)).astype("f4")
    y = x[:, :1] ** 2 * scale / np.arange(1, n_output + 1, dtype="f4")
    predictions = np.stack([y * bend for bend in (0, 0.3, 0.6, 1)])
    return Snapshots(np.array([0, 10, 20, 25]), np.array([0.5, 0.1, 0.01, 0.001]), x, y, predictions)


def difference_to(figure: Figure, picture: Image.Image) -> np.ndarray:
    """Return how far the colours of the picture are from those of the figure, drawn all at once: (height, width, 3)."""
    file = io.BytesIO()
    figure.savefig(file)
    expected = np.asarray(Image.open(file).convert("RGB"), dtype=int)
    return np.abs(np.asarray(picture.convert("RGB"), dtype=int) - expected)


def test_a_picture_of_one_feature_equals_one_drawn_from_scratch() -> None:
    shown = snapshots()
    drawn = list(learning.draw_learning(shown, unnamed(1, 1), dpi=100))
    order = np.argsort(shown.x[:, 0])
    for loss, prediction, picture in zip(shown.losses, shown.predictions, drawn, strict=True):
        figure = Figure(dpi=100)
        axes = figure.add_subplot(title="Learning", xlabel="x", ylabel="y")
        axes.plot(shown.x[order, 0], shown.y[order, 0], "o")
        axes.set(xlim=axes.get_xlim(), ylim=learning.y_limits(shown.y, shown.predictions))
        axes.plot(shown.x[order, 0], prediction[order, 0], "r-", linewidth=5)
        text = axes.text(
            np.ptp(shown.x) * 0.75 + shown.x.min(), 0, f"Loss={loss:.4f}", color="red", size=20, ha="center"
        )
        text.set_path_effects([learning.HALO])
        difference = difference_to(figure, picture)
        assert difference.mean() < 0.2
        assert np.quantile(difference, 0.995) <= 10  # the rest are blends of three colours, at the edges of the line


@pytest.mark.parametrize(("n_feature", "n_output"), [(3, 1), (3, 2), (1, 50)])
def test_a_picture_of_many_columns_equals_one_drawn_from_scratch(n_feature: int, n_output: int) -> None:
    shown, columns = snapshots(n_feature, n_output), unnamed(n_feature, n_output)
    count = min(n_output, 12)
    *_, picture = learning.draw_learning(shown, columns, dpi=100)
    title = "Learning: first 12 of 50 targets" if n_output == 50 else "Learning"
    if n_feature == 1:
        canvas, panels = new_panels(title, ["x"] * count, columns.target_names[:count], dpi=100)
    else:
        canvas, panels = new_panels(
            title, [f"true {name}" for name in columns.target_names], ["prediction"] * count, dpi=100
        )
    for index, panel in enumerate(panels):
        y, predictions = shown.y[:, index], shown.predictions[:, :, index]
        if n_feature == 1:
            order = np.argsort(shown.x[:, 0])
            panel.plot(shown.x[order, 0], y[order], "C0.")
            panel.plot(shown.x[order, 0], predictions[-1, order], "r-", linewidth=2)
        else:
            panel.plot(y, predictions[-1], "r.")
            panel.plot(np.sort(y), np.sort(y), "C0-")
        panel.set_ylim(learning.y_limits(y, predictions))
    text = panel.text(0.98, 0.98, "Loss=0.0010", size=20, ha="right", va="top", transform=canvas.figure.transFigure)
    if n_output == 1:
        low, high = panel.get_ylim()
        place = (y.min() + 0.75 * np.ptp(y), low + 0.03 * (high - low))
        text.set(position=place, ha="center", va="baseline", transform=panel.transData)
    text.set(color="red", path_effects=[learning.HALO], in_layout=False)
    difference = difference_to(canvas.figure, picture)
    assert difference.mean() < 0.4
    assert np.quantile(difference, 0.99) <= 10


@pytest.mark.parametrize(
    ("n_feature", "n_output", "rows", "scale"),
    [
        *((n, 1, rows, scale) for n in (1, 2) for rows, scale in [(1, 1.0), (60, 0.0), (60, 1e-45), (60, 3e38)]),
        (1, 3, 60, 3e38),
        (2, 3, 60, 3e38),
    ],
)
def test_extreme_values_are_drawn_with_their_loss(n_feature: int, n_output: int, rows: int, scale: float) -> None:
    shown = snapshots(n_feature, n_output)
    shown = shown._replace(
        x=(shown.x * scale)[:rows], y=(shown.y * scale)[:rows], predictions=(shown.predictions * scale)[:, :rows]
    )
    for picture in learning.draw_learning(shown._replace(losses=shown.losses * 1e76), unnamed(n_feature, n_output), 60):
        red = (np.asarray(picture.convert("RGB")) == RED).all(axis=2)
        assert red.sum() > 50
        assert not red[[0, -1]].any()
        assert not red[:, [0, -1]].any()


@pytest.mark.parametrize(("n_feature", "n_output"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_the_prediction_of_a_single_point_is_seen(n_feature: int, n_output: int) -> None:
    shown = snapshots(n_feature, n_output)
    shown = shown._replace(x=shown.x[:1], y=shown.y[:1], predictions=shown.predictions[:, :1], losses=np.ones(4))
    pictures = learning.draw_learning(shown, unnamed(n_feature, n_output), dpi=60)
    assert len({picture.tobytes() for picture in pictures}) == 4


@pytest.mark.parametrize(("n_feature", "n_output", "scale"), [(1, 1, 1e-6), (1, 1, 1), (1, 1, 1e6), (2, 3, 1)])
def test_nothing_red_is_cut_off(n_feature: int, n_output: int, scale: float) -> None:
    for picture in learning.draw_learning(snapshots(n_feature, n_output, scale), unnamed(n_feature, n_output), dpi=60):
        red = (np.asarray(picture.convert("RGB")) == RED).all(axis=2)
        assert red.any()
        assert not red[[0, -1]].any()
        assert not red[:, [0, -1]].any()


def test_limits_hold_all_but_predictions_far_off() -> None:
    y = np.array([[0.0], [1.0]])
    assert learning.y_limits(y, np.array([0.2, 0.5])) == (-0.05, 1.05)
    assert learning.y_limits(y, np.array([-0.5, 1.5])) == (-0.55, 1.55)
    assert learning.y_limits(y, np.array([-1e9, 1e9])) == (-1.05, 2.05)


BLUE = (31, 119, 180)


@pytest.mark.parametrize("rows", [60, 1000])
def test_the_diagonal_lies_above_the_predictions(rows: int) -> None:
    y = np.linspace(0, 1, rows, dtype="f4")[:, None]
    exact = Snapshots(np.array([0]), np.zeros(1), np.hstack([y, y]), y, y[None])
    (picture,) = learning.draw_learning(exact, unnamed(2, 1), dpi=100)
    pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == BLUE).all(axis=2).sum() > 300  # all of the diagonal, with a red prediction at each of its points


def test_points_are_opaque_unless_they_are_many() -> None:
    assert [opacity(points) for points in (1, 100, 400, 1000)] == [1, 1, 1, 0.4]


def test_a_prediction_over_dates_stands_between_dates() -> None:
    """A year later, the picture is another, though x, in days since the first date, is the same."""
    pictures = []
    for origin in (14000.0, 14365.0):
        date = Date(name="sold", form="year-month-day", origin=origin, fill=0.0, periods=[])
        columns = Columns(features=[date], targets=[Number(name="y")])
        pictures.append(next(learning.draw_learning(snapshots(scale=1), columns, dpi=60)).tobytes())
    assert pictures[0] != pictures[1]


def of_several(shown: Snapshots, networks: int) -> Snapshots:
    """Return snapshots of so many networks around the predictions, their mean, with a half-width for each target."""
    shifts = np.linspace(-0.3, 0.3, networks, dtype="f4")[:, None, None]
    each = shown.predictions[:, None] + shifts * shown.predictions[:, None] - shifts / 4  # (k, networks, m, n_output)
    half_widths = np.linspace(0.1, 0.2, shown.y.shape[1], dtype="f4")
    return shown._replace(networks=each, half_widths=half_widths)


def several_from_scratch(shown: Snapshots, index: int) -> Figure:
    """Return a picture of several networks and of intervals, drawn all at once."""
    assert shown.networks is not None
    assert shown.half_widths is not None
    is_curve, targets = shown.x.shape[1] == 1, unnamed(1, shown.y.shape[1]).target_names
    labels = (["x"] * len(targets), targets) if is_curve else ([f"true {y}" for y in targets], ["prediction"] * 3)
    canvas, panels = new_panels("Learning", *labels, dpi=100)
    learning.write_notes(canvas.figure, panels, shown)
    width, dot = (5, "o") if len(panels) == 1 else (2, ".")
    for target, panel in enumerate(panels):
        y, mean, networks = shown.y[:, target], shown.predictions[..., target], shown.networks[..., target]
        x = shown.x[:, 0] if is_curve else y
        order = np.argsort(x)
        middle = mean[-1] if is_curve else y
        edges = [(middle + sign * shown.half_widths[target])[order] for sign in (-1, 1)]
        panel.fill_between(x[order], *edges, color="C0", alpha=learning.SHADE, linewidth=0)
        if is_curve:
            panel.plot(x, y, f"C0{dot}")
            for network in networks[index]:
                panel.plot(x[order], network[order], "r-", linewidth=width / 5, alpha=min(0.6, 8 / len(networks[0])))
            panel.plot(x[order], mean[index, order], "r-", linewidth=width)
        else:
            panel.plot(y, mean[index], "r.")
            panel.plot(y[order], y[order], "C0-")
        panel.set_ylim(learning.y_limits(y, np.append(mean, networks[-1] if is_curve else [])))
    place: dict[str, Any] = {"x": 0.98, "y": 0.98, "ha": "right", "va": "top", "transform": canvas.figure.transFigure}
    place = learning.label_place(panels[0], is_curve) if len(panels) == 1 else place
    text = panels[-1].text(**place, s=f"Loss={shown.losses[index]:.4f}", color="red", size=20, in_layout=False)
    text.set_path_effects([learning.HALO])
    return canvas.figure


@pytest.mark.parametrize(
    ("n_feature", "n_output", "networks"), [(1, 1, 2), (1, 1, 20), (1, 3, 5), (3, 1, 5), (3, 3, 5)]
)
def test_a_picture_of_several_networks_and_of_intervals_equals_one_drawn_from_scratch(
    n_feature: int, n_output: int, networks: int
) -> None:
    shown = of_several(snapshots(n_feature, n_output), networks)
    drawn = list(learning.draw_learning(shown, unnamed(n_feature, n_output), dpi=100))
    for index in (1, 3):
        file = io.BytesIO()
        several_from_scratch(shown, index).savefig(file)
        expected = Image.open(file).convert("RGB").quantize(palette=learning.palette(), dither=Image.Dither.NONE)
        difference = np.abs(np.asarray(drawn[index].convert("RGB"), int) - np.asarray(expected.convert("RGB"), int))
        assert difference.mean() < 0.02


@pytest.mark.parametrize(("n_feature", "n_output", "networks"), [(1, 1, 2), (3, 1, 1000), (1, 30, 1000), (3, 4, 2)])
def test_notes_say_how_many_networks_there_are_and_what_is_shaded(n_feature: int, n_output: int, networks: int) -> None:
    shown = snapshots(n_feature, n_output)
    each = np.zeros((4, networks, 60, n_output), "f4")
    shown = shown._replace(networks=each, half_widths=np.ones(n_output, "f4"))
    canvas, panels = new_panels(learning.title_of("Learning", n_output, "targets"), ["x"] * 12, ["y"] * 12, dpi=60)
    if n_output == 1:
        canvas, panels = new_panels("Learning", ["x"], ["y"], dpi=60)
    learning.write_notes(canvas.figure, panels, shown)
    canvas.draw()
    texts = [text for text in canvas.figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    notes = [text for text in texts if re.search("network|shaded", text.get_text())]
    first = f"{networks} networks and their mean" if n_feature == 1 else f"mean of {networks} networks"
    assert "; ".join(note.get_text() for note in notes) == f"{first}; shaded: 90 % of held-out errors"
    boxes = [text.get_window_extent() for text in texts]
    for box in (note.get_window_extent() for note in notes):
        assert box.count_overlaps(boxes) == 1  # with itself
        assert box.y0 >= panels[0].bbox.y1
        assert 0 <= box.x0 < box.x1 <= canvas.figure.bbox.x1
