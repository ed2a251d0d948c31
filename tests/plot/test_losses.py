import itertools

import numpy as np
import pytest

from stages.plot import losses


@pytest.mark.parametrize(
    "values",
    {
        "one decade": 1.2 + 16.8 * 0.97 ** np.arange(200),
        "less than a factor of two": np.linspace(1.2, 2.1, 200),
        "tiny differences": 0.1234 + 1e-5 * 0.97 ** np.arange(200),
        "differences in the last bits": 0.123456789 + 1e-8 * 0.97 ** np.arange(200),
        "eight decades": 10 ** -np.linspace(0, 8, 200),
        "all that float32 holds": np.array([1e-45, 1e38]),
        "constant": np.full(200, 0.37),
        "zero in the end": np.array([1, 0.5, 0, 0]),
        "zero": np.zeros(200),
        "one epoch": np.array([0.3]),
    }.values(),
)
def test_a_loss_axis_has_labels_that_differ_and_lie_apart(values: np.ndarray) -> None:
    _, axes = losses.loss_axes({"loss": values}, dpi=100)
    boxes = [label.get_window_extent() for label in axes.get_yticklabels() if label.get_text()]
    inside = [box for box in boxes if axes.bbox.y0 <= (box.y0 + box.y1) / 2 <= axes.bbox.y1]
    assert 2 <= len(inside) <= 12
    assert all(upper.y0 > lower.y1 for lower, upper in itertools.pairwise(inside))
    assert all(box.x0 >= 0 for box in inside)
    texts = [label.get_text() for label in axes.get_yticklabels() if label.get_text()]
    assert len(set(texts)) == len(texts)
    assert all(tick == int(tick) for tick in axes.get_xticks())


EPOCHS = np.arange(200)
TRAINING = 0.5 * 0.97**EPOCHS + 0.01
VALIDATION = TRAINING + 0.01 + 1e-4 * EPOCHS


def test_the_validation_loss_is_drawn_and_the_epoch_whose_weights_were_kept_is_marked() -> None:
    _, axes = losses.loss_axes({"loss": TRAINING, "validation_loss": VALIDATION}, dpi=50)
    training, validation, kept = axes.lines
    np.testing.assert_array_equal(training.get_ydata(), TRAINING)
    np.testing.assert_array_equal(validation.get_ydata(), VALIDATION)
    best = min(EPOCHS, key=lambda epoch: VALIDATION[epoch])
    assert kept.get_xdata() == [best, best]
    labels = ["training", "validation", f"weights kept: epoch {best}"]
    assert axes.get_legend_handles_labels() == ([training, validation, kept], labels)
    assert axes.get_legend()


def test_of_equal_validation_losses_the_first_is_marked() -> None:
    _, axes = losses.loss_axes({"loss": TRAINING[:4], "validation_loss": np.array([2.0, 1, 3, 1])}, dpi=50)
    assert axes.lines[-1].get_xdata() == [1, 1]


@pytest.mark.parametrize("training", [TRAINING, 0 * TRAINING])
def test_the_labels_of_the_loss_axis_suit_both_curves(training: np.ndarray) -> None:
    _, axes = losses.loss_axes({"loss": training, "validation_loss": 10 ** -np.linspace(0, 8, 200)}, dpi=50)
    assert axes.get_yscale() == "log"
    assert 2 <= len([label for label in axes.get_yticklabels() if label.get_text()]) <= 15


def test_a_learning_rate_that_changes_is_drawn_beneath() -> None:
    rate = 0.1 * 0.99**EPOCHS
    canvas, axes = losses.loss_axes({"loss": TRAINING, "learning_rate": rate}, dpi=50)
    above, below = canvas.figure.axes
    assert above is axes
    assert axes.get_legend() is None
    np.testing.assert_array_equal(below.lines[0].get_ydata(), rate)
    assert (above.get_xlabel(), below.get_xlabel()) == ("", "epoch")
    assert above.bbox.y0 > below.bbox.y1


@pytest.mark.parametrize("known", [{}, {"validation_loss": VALIDATION}])
def test_a_learning_rate_that_stays_changes_nothing(known: dict[str, np.ndarray]) -> None:
    table = {"loss": TRAINING, **known}
    with_rate = losses.draw_losses({**table, "learning_rate": np.full(200, 0.1)}, dpi=50)
    assert with_rate.tobytes() == losses.draw_losses(table, dpi=50).tobytes()
