import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from stages.columns import Columns, Date, Number, unnamed
from stages.history import Snapshots
from stages.plot import learning
from stages.plot.figure import new_panels, opacity

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
