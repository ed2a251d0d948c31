import itertools

import numpy as np
import pytest

from stages.plot import losses

pytestmark = pytest.mark.slow  # it draws many pictures


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


def test_the_loss_of_classes_is_called_cross_entropy() -> None:
    _, axes = losses.loss_axes({"loss": TRAINING}, 50, "cross-entropy loss")
    assert axes.get_ylabel() == "cross-entropy loss"
    of_amounts, of_classes = (losses.draw_losses({"loss": TRAINING}, 50, classes=classes) for classes in (False, True))
    assert of_amounts.tobytes() != of_classes.tobytes()


@pytest.mark.parametrize("known", [{}, {"validation_loss": VALIDATION}])
def test_a_learning_rate_that_stays_changes_nothing(known: dict[str, np.ndarray]) -> None:
    table = {"loss": TRAINING, **known}
    with_rate = losses.draw_losses({**table, "learning_rate": np.full(200, 0.1)}, dpi=50)
    assert with_rate.tobytes() == losses.draw_losses(table, dpi=50).tobytes()


def of_several(spread: float) -> dict[str, np.ndarray]:
    """Return a loss table of several networks, whose standard deviations are so many times the means."""
    table = {"loss": TRAINING, "validation_loss": VALIDATION}
    return table | {f"{name}_std": spread * values for name, values in table.items()}


@pytest.mark.parametrize("spread", [0.01, 3.0])
def test_the_band_of_several_networks_is_a_deviation_up_and_as_high_down_on_its_axis(spread: float) -> None:
    _, axes = losses.loss_axes(of_several(spread), dpi=50)
    assert axes.get_yscale() == "log"
    assert axes.get_title() == "Training and validation loss: mean ± std of the networks"
    lowest, highest = axes.get_ylim()
    for line, shaded, mean in zip(axes.lines, axes.collections, (TRAINING, VALIDATION), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), mean)
        corners = np.asarray(shaded.get_paths()[0].vertices)  # (corners, 2)
        for epoch in (0, 100, 199):
            at_epoch = corners[corners[:, 0] == epoch, 1]
            assert at_epoch.max() == pytest.approx(mean[epoch] * (1 + spread))
            assert np.sqrt(at_epoch.min() * at_epoch.max()) == pytest.approx(mean[epoch])
            if spread < 0.1:
                assert at_epoch.min() == pytest.approx(mean[epoch] * (1 - spread), rel=1e-3)
            assert lowest < at_epoch.min() < at_epoch.max() < highest


def test_the_band_holds_losses_of_0_and_the_smallest_that_float32_holds() -> None:
    mean, std = np.array([1, 1e-45, 0, 0]), np.array([1, 1e-45, 1e-45, 0])
    lower, upper = losses.band(mean, std)
    np.testing.assert_array_equal(upper, mean + std)
    np.testing.assert_allclose(lower, [0.5, 0.5e-45, 0, 0], rtol=1e-9)
    losses.loss_axes({"loss": mean, "loss_std": std}, dpi=50)


def test_no_epoch_is_marked_where_each_network_keeps_the_weights_of_its_own() -> None:
    _, axes = losses.loss_axes(of_several(0.5), dpi=50)
    assert axes.get_legend_handles_labels()[1] == ["training", "validation"]
    assert len(axes.lines) == 2


def test_the_legend_lies_beside_the_curves_and_bands() -> None:
    falling = of_several(1.0)
    for table in (falling, {name: values[::-1] for name, values in falling.items()}):
        _, axes = losses.loss_axes(table, dpi=100)
        legend = axes.get_legend()
        assert legend
        box = legend.get_window_extent()
        for shaded in axes.collections:
            corners = axes.transData.transform(np.asarray(shaded.get_paths()[0].vertices))
            assert not box.count_contains(corners)
