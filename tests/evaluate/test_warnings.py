import pytest
import torch

from stages.evaluate.metrics import Metrics
from stages.evaluate.warnings import comparisons, few_rows, leaks


def scores(network: float, mean: float, least_squares: float) -> dict[str, Metrics]:
    """Return the metrics of three models with these mean squared errors, for a target of variance 1."""
    errors = {"network": network, "mean": mean, "least_squares": least_squares}
    return {name: {"mse": mse, "rmse": mse**0.5, "mae": mse**0.5, "r2": 1 - mse} for name, mse in errors.items()}


def test_fewer_than_thirty_test_rows_are_few() -> None:
    assert few_rows(30) == {}
    assert few_rows(29) == {"test_rows": "only 29 test rows: with other test rows, the error may be quite different"}
    assert few_rows(1) == {"test_rows": "only 1 test row: with other test rows, the error may be quite different"}


def test_a_network_is_warned_of_if_a_baseline_is_better() -> None:
    mean = "the network predicts worse than the mean of the training rows: try other values in the section train"
    linear = "the network predicts worse than least squares: use least squares, or try other settings"
    assert comparisons({"price": scores(0.5, 1.0, 0.5)}) == {}
    assert comparisons({"price": scores(0.5, 1.0, 0.4)}) == {"worse_than_least_squares": linear}
    assert comparisons({"price": scores(2, 1.0, 3)}) == {"worse_than_mean": mean}


def test_of_several_targets_those_are_named_that_a_baseline_predicts_better() -> None:
    warnings = comparisons({"a": scores(0.5, 1, 0.4), "b\n": scores(2, 1, 0.4), "c": scores(0.1, 1, 0.4)})
    assert "rows for b\\n: " in warnings["worse_than_mean"]
    assert "least squares for a, b\\n: " in warnings["worse_than_least_squares"]


@pytest.mark.parametrize(("least_squares", "leak"), [(1e-7, True), (1e-5, False)])
def test_least_squares_that_fits_to_rounding_is_a_leak_from_its_largest_weights(
    least_squares: float, leak: bool
) -> None:
    targets = {"a": scores(0.1, 1, 0.1), "b": scores(0.1, 1, least_squares)}
    weights = torch.tensor([[1, 0.1], [1, -0.4], [1, 1e-4], [1, 0.3], [1, 0.2]])
    words = (
        "least squares predicts b almost exactly from v, x, y: "
        "unless they are known before b, leave them out of generate.features"
    )
    assert leaks(targets, weights, ["u", "v", "w", "x", "y"]) == ({"leak": words} if leak else {})


def test_a_target_that_is_constant_in_the_test_rows_is_no_leak() -> None:
    targets = {"a": {"least_squares": Metrics(mse=0, rmse=0, mae=0, r2=None)}}
    assert leaks(targets, torch.ones(1, 1), ["u"]) == {}
