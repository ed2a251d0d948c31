from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from stages.columns import Category, Columns, Number
from stages.history import Snapshots
from stages.plot import confusion
from stages.plot.learning import palette

pytestmark = pytest.mark.slow  # it draws many pictures

RED = (255, 0, 0)
BLUE = (31, 119, 180)
WHITE = (255, 255, 255)


def named(classes: int, name: str = "{}") -> Columns:
    levels = [name.format(f"{index:04}") for index in range(classes)]
    return Columns(features=[Number(name="x")], targets=[Category(name="species", levels=levels)])


def taken_for(true: list[int], predicted: list[list[int]], classes: int) -> Snapshots:
    """Return snapshots of points of these true classes, each taken, at each epoch, for one with probability 0.6."""
    y = np.eye(classes, dtype="f4")[true]
    probabilities = (np.eye(classes)[np.array(predicted)] * 0.6 + 0.4 / classes).astype("f4")
    epochs = np.arange(len(predicted)) * 10
    return Snapshots(epochs, np.linspace(1, 0.5, len(epochs)), np.zeros((len(true), 1), "f4"), y, probabilities)


def learned(classes: int, rows: int) -> Snapshots:
    """Return three snapshots: all points taken for the first class, then half of them, then each for its own."""
    true = np.arange(rows) % classes
    return taken_for(true.tolist(), [[0] * rows, (true * (np.arange(rows) % 2)).tolist(), true.tolist()], classes)


def cell_colours(picture: Image.Image, classes: int) -> np.ndarray:
    """Return the colour in a corner of each cell, (classes, classes, 3); a pixel of it, where no number is."""
    canvas, panel = confusion.new_matrix([f"{index:04}" for index in range(classes)], named(classes), 100)
    canvas.draw()
    pixels = np.asarray(picture.convert("RGB"))
    places = [panel.transData.transform((c - 0.35, r - 0.35)) for r in range(classes) for c in range(classes)]
    shown = [pixels[pixels.shape[0] - round(float(y)), round(float(x))] for x, y in places]
    return np.array(shown).reshape(classes, classes, 3)


def test_cells_are_blue_where_right_red_where_wrong_and_as_dark_as_they_are_many() -> None:
    true, predicted = [0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 2, 2, 2]
    (picture,) = confusion.draw_confusions(taken_for(true, [predicted], 4), named(4), 100)
    shown = cell_colours(picture, 4)
    counts = np.zeros((4, 4))
    for one, other in zip(true, predicted, strict=True):
        counts[one, other] += 1
    for row, column in np.ndindex(4, 4):
        share = counts[row, column] / max(1, counts[row].sum())
        ink = np.array(BLUE if row == column else RED)
        expected = np.array(WHITE) + (ink - WHITE) * np.ceil(share * 17) / 17
        np.testing.assert_array_equal(shown[row, column], np.rint(expected))


def test_every_shade_is_a_colour_of_the_palette() -> None:
    colours = {tuple(colour) for colour in np.reshape(palette().getpalette() or [], (-1, 3)).astype(int).tolist()}
    for share in np.linspace(0, 1, 1001):
        assert {
            tuple(colour) for colour in confusion.colours(np.full((2, 2), share)).reshape(-1, 3).tolist()
        } <= colours
    assert tuple(round(255 * grey) for grey in confusion.LINES) in colours


def test_shares_of_a_class_sum_to_1_and_the_highest_probability_counts() -> None:
    random = np.random.default_rng(0)
    true, probabilities = random.integers(0, 5, 200), random.dirichlet(np.ones(6), 200).astype("f4")
    shares = confusion.confusion(np.eye(6, dtype="f4")[true], probabilities)
    for row in range(5):
        predicted = [max(range(6), key=one.__getitem__) for one in probabilities[true == row].tolist()]
        np.testing.assert_allclose(shares[row], np.bincount(predicted, minlength=6) / len(predicted))
    assert not shares[5].any()  # no point is of this class


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0"), (1e-4, "1"), (0.014, "1"), (0.5, "50"), (0.9999, "99"), (1, "100")]
)
def test_only_all_rows_are_100_percent_and_only_none_are_0(share: float, text: str) -> None:
    assert confusion.percentage(share) == text


@pytest.mark.parametrize(("classes", "numbers"), [(2, True), (7, True), (26, True), (60, False)])
def test_numbers_are_written_where_they_fit(classes: int, numbers: bool) -> None:
    """In the last picture, all that is right is 100 %: without numbers, nothing lies on the blue but lines."""
    *_, picture = confusion.draw_confusions(learned(classes, 2 * classes), named(classes), 100)
    canvas, panel = confusion.new_matrix([""] * classes, named(classes), 100)
    canvas.draw()
    size = confusion.number_size(panel, classes) * 100 / 72
    assert (size >= confusion.LEGIBLE) == numbers
    box = panel.text(0, 0, "100", size=size * 0.72).get_window_extent()
    cell = panel.get_window_extent()
    assert box.width <= cell.width / classes
    pixels = np.asarray(picture.convert("RGB"))
    assert (pixels == BLUE).all(axis=2).any()


@pytest.mark.parametrize("classes", [2, 15, 26, 1000])
@pytest.mark.parametrize("name", ["{}", "{} of the river", "企鹅企鹅企鹅企鹅{}"])
def test_texts_lie_apart_and_inside_the_picture(classes: int, name: str) -> None:
    columns, shown = named(classes, name), learned(classes, 4)
    shown = shown._replace(networks=np.zeros((3, 1000, 4, classes), "f4"))
    canvas, panel = confusion.new_matrix(columns.classes[: confusion.MOST_CLASSES], columns, 100)
    confusion.write_notes(canvas.figure, shown)
    canvas.figure.text(0.98, 0.98, "Loss=1.2345e+06", ha="right", va="top", size=20)
    canvas.draw()
    texts = [text for text in canvas.figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    texts = [text for text in texts if text.get_visible()]
    boxes = [text.get_window_extent() for text in texts]
    pairs = [(one, other) for one, other in combinations(range(len(boxes)), 2) if boxes[one].overlaps(boxes[other])]
    assert [(texts[one].get_text(), texts[other].get_text()) for one, other in pairs] == []
    whole = canvas.figure.bbox
    assert all(0 <= box.x0 < box.x1 <= whole.x1 and 0 <= box.y0 < box.y1 <= whole.y1 for box in boxes)
    assert panel.bbox.height > 0.4 * whole.height


def test_of_many_classes_the_most_frequent_are_drawn_and_the_title_says_so() -> None:
    true = [*range(130), 129, 129, 5, 5]
    shown = taken_for(true, [true], 130)
    kept = confusion.most_frequent(shown.y, 100)
    assert kept.tolist() == [*range(99), 129]
    columns = named(130)
    canvas, _ = confusion.new_matrix([columns.classes[index] for index in kept], columns, 50)
    assert canvas.figure.get_suptitle() == "Learning: 100 of 130 classes"
    assert len(list(confusion.draw_confusions(shown, columns, 50))) == 1


@pytest.mark.parametrize(("classes", "rows"), [(1, 1), (2, 1), (2, 60), (26, 100)])
@pytest.mark.parametrize("loss", [0.0, 0.5, 1e30])
def test_each_picture_has_its_loss_in_red_and_nothing_red_is_cut_off(classes: int, rows: int, loss: float) -> None:
    shown = learned(classes, rows)
    for picture in confusion.draw_confusions(shown._replace(losses=np.full(3, loss)), named(classes), 60):
        red = (np.asarray(picture.convert("RGB")) == RED).all(axis=2)
        assert red[: picture.height // 10].sum() > 50
        assert not red[[0, -1]].any()
        assert not red[:, [0, -1]].any()


def test_what_an_earlier_picture_shows_is_gone_in_the_next() -> None:
    shown = learned(3, 60)
    *_, after = confusion.draw_confusions(shown, named(3), 60)
    last = shown._replace(epochs=np.zeros(1, int), losses=shown.losses[-1:], predictions=shown.predictions[-1:])
    (alone,) = confusion.draw_confusions(last, named(3), 60)
    assert after.tobytes() == alone.tobytes()
