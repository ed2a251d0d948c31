"""Restore both saved models, compare them, and measure how well they predict.

data/net.pkl, data/net_params.pkl, data/train.pt, data/test.pt → data/metrics.json, data/predictions.csv,
data/errors.csv.
"""

import json
from pathlib import Path
from typing import Any

import torch

from stages import dataset, residuals
from stages.dataset import Dataset
from stages.ensemble import width
from stages.evaluate.baselines import Linear, Model, least_squares, mean_of, predictions
from stages.evaluate.class_metrics import BINS, ClassErrors
from stages.evaluate.logistic import logistic_regression
from stages.evaluate.measured import errors_at, measure
from stages.evaluate.metrics import Errors
from stages.evaluate.predictions import predict, write_predictions
from stages.evaluate.uncertainty import (
    half_width_of,
    of_held_back,
    of_intervals,
    of_one,
    require_held_back,
    residuals_of,
    with_standard_errors,
)
from stages.evaluate.warnings import comparisons, few_rows, leaks, of_classes
from stages.models import Blueprint, restore_net, restore_params
from stages.network import Network
from stages.runtime import files
from stages.runtime.chunks import rows_at_a_time
from stages.runtime.errors import UserError, counted
from stages.runtime.params import StageParams
from stages.runtime.progress import showing
from stages.runtime.spread import evenly_spread
from stages.tabular import ensemble_of

TABLE_ROWS = 1000  # of predictions.csv, at most, but at least one point
FEWEST_ROWS = 100  # of errors.csv, which otherwise has as many lines


class Params(StageParams):
    """What this stage reads from params.yaml."""

    network: Network


def reference_metrics(train: Dataset, test: Dataset, measured: Errors | ClassErrors, networks: int) -> dict[str, Any]:
    """Return the metrics to compare the errors measured at the test points with.

    If it is known, that is the noise floor, which no model can beat. If not, it is the metrics of two models without a
    network, which should be easy to beat, fitted to the training points, with warnings where they say that something is
    wrong; and if there are several targets, all of these metrics and the network's for each target.
    """
    if test.noise_variance is not None and (mse := measured.overall()["mse"]) is not None:
        return {
            "noise_floor": test.noise_variance,
            "test_mse_over_noise_floor": test.over_noise_floor(mse),
        }
    mean = mean_of(train.y)  # of classes, their shares
    models: dict[str, Model]
    if isinstance(measured, ClassErrors):
        models = {"most_frequent": mean, "logistic_regression": logistic_regression(train.x, train.y)}
        warnings = of_classes(measured, train.names.classes)
    else:
        models = {"mean": mean, "least_squares": least_squares(train.x, train.y)}
        warnings = {}
    errors = {name: errors_at(test, predictions(model, test.x)) for name, model in models.items()}
    metrics: dict[str, Any] = {"baselines": {name: model_errors.overall() for name, model_errors in errors.items()}}
    targets = train.names.target_names
    by_model = {name: some.by_target(targets) for name, some in {"network": measured, **errors}.items()}
    by_target = {target: {name: by_model[name][target] for name in by_model} for target in targets}
    if len(targets) > 1:
        metrics["targets"] = by_target
    warnings |= comparisons(by_target, networks)
    if isinstance(linear := models.get("least_squares"), Linear):
        warnings |= leaks(by_target, linear.weights, train.names.x_names())
    metrics["warnings"] = warnings
    return metrics


def summary(metrics: dict[str, Any]) -> str:
    """Return the error at the test points, what to compare it with if there is anything, and what intervals cover."""
    classes = "test_accuracy" in metrics
    score = "log_loss" if classes else "rmse"
    text = f"test accuracy {metrics['test_accuracy']:.1%}, log loss " if classes else "test rmse "
    text += f"{metrics[f'test_{score}']:.4g}"
    if f"test_{score}_se" in metrics:
        text += f" ± {metrics[f'test_{score}_se']:.2g}"
    if baselines := metrics.get("baselines"):
        shown = (
            f"{name.replace('_', ' ')} " + (f"{own['accuracy']:.1%}, " if classes else "") + f"{own[score]:.4g}"
            for name, own in reversed(baselines.items())
        )
        text += f"; {('; ' if classes else ', ').join(shown)}"
    elif (ratio := metrics["test_mse_over_noise_floor"]) is not None:
        text += f", test mse {ratio:.4g} times the noise floor"
    if "interval_coverage" in metrics:
        coverage = metrics["interval_coverage"]
        shares = coverage.values() if isinstance(coverage, dict) else [coverage]
        covered = " and ".join(f"{share:.1%}" for share in shares)
        text += f"; {metrics['interval_level']:.0%} intervals cover {covered} of the test points"
    return text


def check_columns(train: Dataset, test: Dataset) -> None:
    """Raise UserError if the test points have other columns, or another number of them, than the training points."""
    n_feature, n_output = train.x.shape[1], train.y.shape[1]
    if test.x.shape[1] != n_feature or test.y.shape[1] != n_output:
        wanted = f"{counted(n_feature, 'feature')} and {counted(n_output, 'output')}, like data/train.pt"
        raise UserError(f"data/test.pt: must have {wanted}, got {test.x.shape[1]} and {test.y.shape[1]}")
    if test.columns != train.columns:
        raise UserError("data/test.pt: must have the same columns as data/train.pt, in the same order")


def run(params: Params) -> str:
    """Read points and models, compare and measure, write metrics, predictions and errors; return what they say."""
    train, test = dataset.read("data/train.pt"), dataset.read("data/test.pt")
    check_columns(train, test)
    blueprint = Blueprint.of(train, params.network)
    net = restore_net("data/net.pkl", blueprint).eval()
    twin = restore_params("data/net_params.pkl", blueprint).eval()
    if ensemble := ensemble_of(net):
        require_held_back(ensemble, ensemble_of(twin), len(train.x))
    half_width, remarks = half_width_of(ensemble, classes=bool(test.names.classes))

    rows = rows_at_a_time(width(net))
    n, n_output = test.y.shape
    table_rows = TABLE_ROWS // n_output
    in_table, in_errors = (torch.tensor(evenly_spread(n, max(least, table_rows))) for least in (1, FEWEST_ROWS))
    held_back = int(ensemble.folds[1]) * ensemble.networks.networks if ensemble else 0
    with showing(2 * n + len(train.x) + held_back, "prediction") as advance:
        measured = measure((net, twin), test, rows, (in_table, in_errors), half_width, advance)
        train_errors = errors_at(train, (chunk.mean for chunk in predict(net, train.x, rows, advance)))
        of_rows = of_held_back(net, ensemble, train, rows, advance) if ensemble and held_back else {}

    trained_by = "log_loss" if test.names.classes else "mse"
    overall, each, without = measured.scores()
    errors = residuals_of(test, in_errors, measured.in_errors, overall, without, n=n)
    compared = reference_metrics(train, test, measured.errors.of(0), len(each))
    intervals = {} if half_width is None else of_intervals(half_width, measured.covered, n, test.names.target_names)
    # Texts come last: `dvc exp show` shows the metrics in this order.
    texts = {"warnings": few_rows(n) | compared.pop("warnings", {}), "columns": train.decisions}
    metrics = {
        f"train_{trained_by}": train_errors.overall()[trained_by],
        **with_standard_errors("test", overall, errors),
        **of_one(each),
        **of_rows,
        **({"calibration_bins": BINS} if test.names.classes else {}),
        **intervals,
        **compared,
        "max_abs_difference": measured.difference,
        "net_bytes": Path("data/net.pkl").stat().st_size,
        "net_params_bytes": Path("data/net_params.pkl").stat().st_size,
        **{name: lines for name, lines in texts.items() if lines},
    }
    with files.writing("data/metrics.json") as file:
        file.write((json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
    residuals.write("data/errors.csv", errors)
    shown = test.x[in_table], test.y[in_table], measured.in_table
    write_predictions("data/predictions.csv", test.names, *shown, half_width)
    warnings = [f"warning: {line}" for line in metrics.get("warnings", {}).values()]
    return "\n".join([*warnings, *remarks, f"{summary(metrics)} -> data/metrics.json, data/predictions.csv"])
