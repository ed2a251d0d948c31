from itertools import combinations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from stages.columns import Category, Columns, Date, Number
from stages.plot.class_data import BINS, bin_edges, class_data_panels, groups_of
from tests.plot.test_data import not_overlapping, tick_names

pytestmark = pytest.mark.slow  # it draws many pictures

ISLANDS = ["Biscoe", "Dream", "Torgersen"]


def penguins(classes: int, rows: int = 60, scale: float = 50) -> tuple[np.ndarray, np.ndarray, Columns]:
    """Return x and one-hot y of a number with gaps, a category, a few whole numbers and dates, and their columns."""
    random = np.random.default_rng(0)
    days = 14000 + random.uniform(0, 900, rows)
    measured = Date.fit("measured", days, "year-month-day")
    missing = np.arange(rows) % 7 == 6
    bill = np.stack([random.uniform(-scale, scale, rows), missing], axis=1)
    island = np.eye(3)[np.arange(rows) % 3]
    year = 2007 + np.arange(rows)[:, None] % 3
    columns = Columns(
        features=[Number(name="bill", gaps=1), Category(name="island", levels=ISLANDS), Number(name="year"), measured],
        targets=[Category(name="species", levels=[f"{index:03} of the river" for index in range(classes)])],
    )
    y = np.eye(classes, dtype="f4")[random.integers(0, classes, rows)]
    return np.hstack([bill, island, year, measured.encode(days)]).astype("f4"), y, columns


def heights(panel: Axes) -> np.ndarray:
    """Return how many rows each class has in each bin, (classes, bins)."""
    stacked = [patch.get_data() for patch in panel.patches]  # type: ignore[attr-defined]
    return np.array([top - bottom for top, _, bottom in stacked])


def test_each_class_is_counted_in_each_bin_and_missing_values_nowhere() -> None:
    x, y, columns = penguins(3)
    _, (bill, island, year, measured) = class_data_panels(x, y, columns, dpi=50)
    assert [panel.get_xlabel() for panel in (bill, island, year, measured)] == columns.feature_names
    np.testing.assert_array_equal(heights(island), y.T @ x[:, 2:5])
    np.testing.assert_array_equal(heights(year), y.T @ (x[:, 5:6] == [2007, 2008, 2009]))
    known = x[:, 1] == 0
    edges = np.linspace(x[known, 0].min(), x[known, 0].max(), BINS + 1)
    for own, counts in zip(y.T == 1, heights(bill), strict=True):
        np.testing.assert_array_equal(counts, np.histogram(x[own & known, 0].astype("f8"), edges)[0])
    assert heights(measured).sum() == len(x)
    assert tick_names(island) == ISLANDS


@pytest.mark.parametrize(("classes", "named"), [(2, 2), (10, 10), (11, 9), (26, 9)])
def test_the_legend_names_at_most_ten_classes_and_counts_the_others(classes: int, named: int) -> None:
    x, y, columns = penguins(classes, rows=400)
    canvas, panels = class_data_panels(x, y, columns, dpi=50)
    (legend,) = canvas.figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    others = [f"and {classes - named} more"] if named < classes else []
    assert texts[named:] == others
    most = np.argsort(-y.sum(axis=0), kind="stable")[:named]
    assert texts[:named] == [f"{index:03} of the river" for index in sorted(most)]
    assert legend.get_title().get_text() == "species"
    for panel in panels:
        colours = [patch.get_facecolor() for patch in panel.patches]
        assert len(set(colours)) == len(colours) == len(texts)
        if panel is not panels[0]:
            assert heights(panel).sum() == len(x)


def test_each_row_is_in_one_group() -> None:
    _, y, columns = penguins(26, rows=400)
    rows = [rows for rows, _, _ in groups_of(y, columns.classes)]
    np.testing.assert_array_equal(np.sum(rows, axis=0), np.ones(400))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros(0),
        *(np.full(3, value) for value in (0, 1e-45, 123456.5, 3e38, -3e38)),
        np.array([-3e38, 3e38]),
        np.array([0, 1e-45]),
        np.array([2007, 2009.0]),
        np.array([1, 2.5]),
        np.array([0, 1000.0]),
        np.array([2.0**30, 2**30 + 128]),
    ],
)
def test_bins_hold_all_values_and_are_wider_than_nothing(values: np.ndarray) -> None:
    values = values.astype("f4").astype("f8")
    edges = bin_edges(values)
    assert (np.diff(edges) > 0).all()
    assert np.isfinite(edges).all()
    assert np.histogram(values, edges)[0].sum() == len(values)


@pytest.mark.parametrize(("classes", "rows", "scale"), [(2, 1, 1), (3, 60, 3e38), (3, 60, 1e-45), (26, 400, 50)])
@pytest.mark.parametrize("features", [1, 4])
def test_panels_and_the_legend_lie_apart_and_inside_the_picture(
    classes: int, rows: int, scale: float, features: int
) -> None:
    x, y, columns = penguins(classes, rows, scale)
    columns = columns.model_copy(update={"features": columns.features[:features]})
    canvas, panels = class_data_panels(x, y, columns, dpi=100)
    boxes = [box for panel in panels if (box := panel.get_tightbbox())]
    boxes.append(canvas.figure.legends[0].get_window_extent())
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert Bbox.union([*boxes, canvas.figure.bbox]).bounds == canvas.figure.bbox.bounds
    assert all(not_overlapping(panel) for panel in panels)
    assert all(tick == int(tick) for panel in panels for tick in panel.get_yticks())
