"""Classes: their metrics by hand in NumPy, logistic regression, the tables, the warnings."""

import csv
import json
import math
from pathlib import Path
from statistics import fmean, stdev, variance

import numpy as np
import pytest
import torch
from torch import Tensor

from stages import dataset, models, residuals
from stages.columns import Category, Columns, Number
from stages.dataset import Dataset
from stages.evaluate import stage as evaluate
from stages.evaluate.class_metrics import area_under_curve, class_errors_of
from stages.evaluate.logistic import PENALTY, logistic_regression
from stages.evaluate.warnings import of_classes
from stages.folds import Folds
from stages.models import Blueprint
from stages.network import Network
from stages.train.held_out import measure_held_out

SECTION = Network.model_validate({"style": "module", "hidden": 6})


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def points(n: int, classes: int, seed: int, unseen: int = 0) -> Dataset:
    """Return points whose class depends on x, the last `unseen` of none that training has seen."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, generator=generator)
    noisy = x[:, 0] + 0.3 * torch.rand(n, generator=generator)
    y = torch.nn.functional.one_hot((noisy / 1.3 * classes).long(), classes).float()
    y[n - unseen :] = 0
    target = Category(name="kind", levels=[f"k{number}" for number in range(classes)])
    return Dataset(x, y, columns=Columns(features=[Number(name="a"), Number(name="probability")], targets=[target]))


def save(classes: int, networks: int = 3, test_points: int = 60, unseen: int = 0) -> torch.nn.Module:
    """Write all that evaluate reads, with networks of random weights."""
    trained_on = points(60, classes, 1)
    dataset.write("data/train.pt", trained_on)
    dataset.write("data/test.pt", points(test_points, classes, 2, unseen))
    model = Blueprint.of(trained_on, SECTION, networks).build(seed=5)
    if networks > 1:
        measure_held_out(model, trained_on, Folds(60, 12, networks, seed=7))
    models.save_net("data/net.pkl", model)
    models.save_params("data/net_params.pkl", model)
    return model.eval()


def by_hand(probability: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the metrics of probabilities, (n, classes), as their definitions say, row by row."""
    truth = [row.argmax() if row.any() else -1 for row in y]
    hits = [int(best == true) for best, true in zip(probability.argmax(axis=1), truth, strict=True)]
    recalls = [np.mean([hit for hit, own in zip(hits, truth, strict=True) if own == true]) for true in set(truth)]
    of_true = [row[true] if true >= 0 else 2.0**-23 for row, true in zip(probability, truth, strict=True)]
    confidence, calibration = probability.max(axis=1), 0.0
    for low in np.arange(10) / 10:
        within = (confidence >= low) & (confidence < low + 0.1)
        calibration += abs(np.sum((np.array(hits) - confidence)[within])) / len(y)
    metrics = {
        "accuracy": float(np.mean(hits)),
        "balanced_accuracy": float(np.mean(recalls)),
        "log_loss": float(-np.mean(np.log(of_true))),
        "brier": float(
            np.mean([sum((row - one) ** 2) + (not one.any()) for row, one in zip(probability, y, strict=True)])
        ),
        "calibration_error": calibration,
    }
    if y.shape[1] == 2 and set(truth) == {0, 1}:
        pairs = [
            (p, q)
            for p, own in zip(probability[:, 1], truth, strict=True)
            if own
            for q, other in zip(probability[:, 1], truth, strict=True)
            if not other
        ]
        metrics["auc"] = float(np.mean([(p > q) + (p == q) / 2 for p, q in pairs]))
    return metrics


@pytest.mark.parametrize(("classes", "unseen"), [(2, 0), (3, 0), (3, 2)])
def test_metrics_of_several_networks_are_those_of_numpy(classes: int, unseen: int) -> None:
    model = save(classes, unseen=unseen)
    evaluate.run(evaluate.Params(kernels="portable", network=SECTION))
    metrics = json.loads(Path("data/metrics.json").read_text(encoding="utf-8"))
    test, y = dataset.read("data/test.pt"), dataset.read("data/test.pt").y.numpy()
    with torch.no_grad():
        each = model.each(test.x).double().numpy()  # type: ignore[operator]
    overall, singles = by_hand(each.mean(axis=0), y), [by_hand(one, y) for one in each]
    expected = {f"test_{name}": value for name, value in overall.items()}
    for name in overall:
        values = [single[name] for single in singles]
        expected |= {f"test_{name}_of_one": fmean(values), f"test_{name}_of_one_std": stdev(values)}
    without = [by_hand(np.delete(each, network, axis=0).mean(axis=0), y) for network in range(3)]
    for name in ("log_loss", "brier"):
        rows = [by_hand(each.mean(axis=0)[[row]], y[[row]])[name] for row in range(60)]
        values = [one[name] for one in without]
        expected[f"test_{name}_se"] = math.sqrt(variance(rows) / 60 + 2 / 3 * 2 * variance(values))
    accuracy = overall["accuracy"]
    expected["test_accuracy_se_of_rows"] = math.sqrt(accuracy * (1 - accuracy) / 59)
    assert {name: value for name, value in metrics.items() if name.startswith("test_")} == pytest.approx(
        expected, rel=1e-4
    )
    shares = np.tile(dataset.read("data/train.pt").y.numpy().astype("f8").mean(axis=0), (60, 1))
    assert metrics["baselines"]["most_frequent"] == pytest.approx(by_hand(shares, y), rel=1e-6, abs=1e-12)
    assert ("unseen_classes" in metrics["warnings"]) == (unseen > 0)
    assert metrics["calibration_bins"] == 10

    errors = residuals.read("data/errors.csv")
    assert errors.losses["log_loss"].mean() == pytest.approx(overall["log_loss"], rel=1e-6)
    assert errors.true[0, 0] == f"k{y[0].argmax()}"
    assert (errors.true[-1, 0] == "(new)") == (unseen > 0)
    with Path("data/predictions.csv").open(newline="", encoding="utf-8") as file:
        row, *_ = csv.DictReader(file)
    assert list(row) == ["target", "true", "predicted", "probability", "a", "feature probability"]
    assert row["predicted"] == f"k{each.mean(axis=0)[0].argmax()}"
    assert float(row["probability"]) == pytest.approx(each.mean(axis=0)[0].max(), rel=1e-6)


def test_metrics_do_not_depend_on_how_the_rows_are_cut() -> None:
    y = points(1000, 2, 1).y
    probabilities = torch.rand(5, 1000, 2, generator=torch.Generator().manual_seed(3)).softmax(dim=2)
    whole = class_errors_of([probabilities], y)
    cut = class_errors_of(probabilities.split(77, dim=1), y)
    for model in range(5):
        assert cut.of(model).overall() == pytest.approx(whole.of(model).overall(), rel=1e-12)
    assert "auc" in whole.of(2).overall()
    assert "auc" not in whole.of(3).overall()  # the mean without a network


def test_equal_scores_count_half_in_the_area_under_the_curve() -> None:
    scores, positive = torch.tensor([0.1, 0.5, 0.5, 0.9]), torch.tensor([False, True, False, True])
    assert area_under_curve(scores, positive) == 3.5 / 4


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_regression_is_where_the_gradient_of_its_loss_is_zero(classes: int) -> None:
    train = points(300, classes, 1)
    model = logistic_regression(train.x * torch.tensor([1.0, 1e6]), train.y)
    x = train.x.double() * torch.tensor([1.0, 1e6])
    x = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    residual = model(train.x * torch.tensor([1.0, 1e6])) - train.y.double()
    gradient = x.T @ residual + PENALTY * model.weights[:-1]
    assert gradient.abs().max() / 300 < 1e-6
    assert residual.sum(dim=0).abs().max() / 300 < 1e-6


def test_a_class_that_is_never_predicted_and_one_that_is_not_known_are_pointed_out() -> None:
    y = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]])
    always_first: Tensor = torch.tensor([[0.8, 0.1, 0.1]]).expand(3, -1)
    warnings = of_classes(class_errors_of([always_first], y), ["u", "v\n", "w"])
    assert warnings == {
        "never_predicted": "a class is never predicted: v\\n (1 test row): add rows of what is rare",
        "unseen_classes": "classes that no training row has count as predicted wrongly: 1 test row",
    }
