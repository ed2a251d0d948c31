from itertools import combinations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from stages.columns import Category, Columns, Date, Feature, Number, unnamed
from stages.plot.data import data_panels

pytestmark = pytest.mark.slow  # it draws many pictures

CITIES = [f"{letter}ton on the river" for letter in "ABCDEFGHIJKLMNO"]


def columns_of(*features: Feature) -> Columns:
    return Columns(features=[*features], targets=[Number(name="price")])


MIXED = columns_of(Number(name="age"), Category(name="city", levels=CITIES), Number(name="income"))


def points(columns: Columns, rows: int = 40, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y, both float32: numbers up to the scale, and for each category one of its values."""
    random = np.random.default_rng(0)
    blocks = [
        np.eye(feature.width)[random.integers(0, feature.width, rows)]
        if isinstance(feature, Category)
        else random.uniform(-scale, scale, (rows, feature.width))
        for feature in columns.features
    ]
    return np.hstack(blocks).astype("f4"), random.uniform(-scale, scale, (rows, len(columns.targets))).astype("f4")


def tick_names(panel: Axes) -> list[str]:
    return [label.get_text() for label in panel.get_xticklabels() if label.get_text()]


def test_each_feature_has_a_panel_with_the_target_over_it() -> None:
    x, y = points(MIXED)
    _, panels = data_panels(x, y, MIXED, dpi=50)
    assert [panel.get_xlabel() for panel in panels] == ["age", "city", "income"]
    values = [x[:, 0], [row.tolist().index(1) for row in x[:, 1:16]], x[:, 16]]
    for panel, expected in zip(panels, values, strict=True):
        (line,) = panel.lines
        np.testing.assert_array_equal(np.ravel(line.get_xdata()), expected)
        np.testing.assert_array_equal(line.get_ydata(), y[:, 0])


def test_the_values_of_a_category_stand_at_their_places_on_the_axis() -> None:
    columns = columns_of(Category(name="sex", levels=["female", "male"]), Number(name="age"))
    _, (panel, _) = data_panels(*points(columns), columns, dpi=50)
    assert tick_names(panel) == ["female", "male"]
    assert [tick for tick in panel.get_xticks() if 0 <= tick <= 1] == [0, 1]


def sold(*spans: int) -> tuple[Columns, np.ndarray]:
    """Return columns of dates, each within so many days of 2008-05-01 and with one missing, and x."""
    dates, blocks = [], []
    for place, days in enumerate(spans):
        cells = 14000 + np.linspace(0, days, 40)
        cells[7] = np.nan
        dates.append(Date.fit(f"sold_{place}", cells, "year-month-day"))
        blocks.append(dates[-1].encode(cells))
    return columns_of(*dates), np.hstack(blocks)


def test_dates_stand_on_the_axis_as_dates_and_missing_ones_nowhere() -> None:
    columns, x = sold(1000)
    _, (panel,) = data_panels(x, np.ones((40, 1), "f4"), columns, dpi=100)
    assert panel.get_xlabel() == "sold_0"
    shown = np.asarray(panel.lines[0].get_xdata())
    np.testing.assert_allclose(np.delete(shown, 7), 14000 + np.delete(np.linspace(0, 1000, 40), 7))
    assert np.isnan(shown[7])
    assert {"2009", "2010"} <= set(tick_names(panel))


DAYS = [1, 40, 400, 1000, 30_000]


@pytest.mark.parametrize("spans", [*([days] for days in DAYS), DAYS[1:], [*DAYS, 3, 10, 100, 200, 2000, 4000, 10_000]])
def test_the_labels_of_dates_lie_apart(spans: list[int]) -> None:
    columns, x = sold(*spans)
    canvas, panels = data_panels(x, np.ones((40, 1), "f4"), columns, dpi=100)
    assert all(len(tick_names(panel)) > 1 for panel in panels)
    assert all(not_overlapping(panel) for panel in panels)
    boxes = [box for panel in panels if (box := panel.get_tightbbox())]
    assert Bbox.union([*boxes, canvas.figure.bbox]).bounds == canvas.figure.bbox.bounds


@pytest.mark.parametrize("count", [1, 2, 15, 400])
def test_a_category_of_many_values_names_some_that_lie_apart(count: int) -> None:
    names = [f"{value:03} on the river" for value in range(count)]
    columns = columns_of(Category(name="id", levels=names))
    _, (panel,) = data_panels(*points(columns), columns, dpi=100)
    ticks = [tick for tick in panel.get_xticks() if tick in range(count)]
    assert tick_names(panel) == [f"{int(tick):03} …river" for tick in ticks]
    assert len(ticks) >= min(count, 15)
    assert not_overlapping(panel)


def not_overlapping(panel: Axes) -> bool:
    boxes = [label.get_window_extent() for label in panel.get_xticklabels() if label.get_text()]
    return not any(one.overlaps(other) for one, other in combinations(boxes, 2))


@pytest.mark.parametrize(
    ("n_feature", "n_output", "title"),
    [
        (13, 1, "Training data: first 12 of 13 features"),
        (500, 50, "Training data: first 12 of 25000 pairs of feature and target"),
    ],
)
def test_at_most_twelve_panels_are_drawn_and_the_title_says_of_how_many(
    n_feature: int, n_output: int, title: str
) -> None:
    columns = unnamed(n_feature, n_output)
    canvas, panels = data_panels(*points(columns), columns, dpi=50)
    assert len(panels) == 12
    assert canvas.figure.get_suptitle() == title


def test_several_targets_are_drawn_over_each_feature_in_turn() -> None:
    columns = unnamed(2, 2)
    x, y = points(columns)
    _, panels = data_panels(x, y, columns, dpi=50)
    labels = [(panel.get_xlabel(), panel.get_ylabel()) for panel in panels]
    assert labels == [("x_0", "y_0"), ("x_0", "y_1"), ("x_1", "y_0"), ("x_1", "y_1")]
    for panel, feature, target in zip(panels, (0, 0, 1, 1), (0, 1, 0, 1), strict=True):
        np.testing.assert_array_equal(np.ravel(panel.lines[0].get_xdata()), x[:, feature])
        np.testing.assert_array_equal(panel.lines[0].get_ydata(), y[:, target])


@pytest.mark.parametrize(
    ("columns", "rows", "scale"),
    [
        (unnamed(2, 6), 1, 1),
        *((unnamed(1, 1), 40, scale) for scale in (0, 1e-45, 123456, 3e38)),
        *((unnamed(12, 1), 40, scale) for scale in (1e-4, 3e38)),
        (MIXED, 1000, 1),
    ],
)
def test_panels_and_their_labels_lie_apart_and_inside_the_picture(columns: Columns, rows: int, scale: float) -> None:
    canvas, panels = data_panels(*points(columns, rows, scale), columns, dpi=100)
    boxes = [box for panel in panels if (box := panel.get_tightbbox())]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert Bbox.union([*boxes, canvas.figure.bbox]).bounds == canvas.figure.bbox.bounds
    assert all(not_overlapping(panel) for panel in panels)
