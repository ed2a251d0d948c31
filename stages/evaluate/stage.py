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
from stages.evaluate.baselines import Model, least_squares, mean_of, predictions
from stages.evaluate.measured import measure
from stages.evaluate.metrics import Errors, errors_of
from stages.evaluate.predictions import predict, write_predictions
from stages.evaluate.uncertainty import (
    ensemble_of,
    half_width_of,
    of_held_back,
    of_intervals,
    of_one,
    require_held_back,
    residuals_of,
    with_standard_errors,
)
from stages.evaluate.warnings import comparisons, few_rows, leaks
from stages.models import Blueprint, restore_net, restore_params
from stages.network import Network
from stages.runtime import files
from stages.runtime.chunks import rows_at_a_time
from stages.runtime.errors import UserError, counted
from stages.runtime.params import StageParams
from stages.runtime.progress import showing
from stages.runtime.spread import evenly_spread

TABLE_ROWS = 1000  # of predictions.csv, at most, but at least one point
FEWEST_ROWS = 100  # of errors.csv, which otherwise has as many lines


class Params(StageParams):
    """What this stage reads from params.yaml."""

    network: Network


def reference_metrics(train: Dataset, test: Dataset, measured: Errors, networks: int) -> dict[str, Any]:
    """Return the metrics to compare the errors measured at the test points with.

    If it is known, that is the noise floor, which no model can beat. If not, it is the metrics of two models without a
    network, which should be easy to beat, fitted to the training points, with warnings where they say that something is
    wrong; and if there are several targets, all of these metrics and the network's for each target.
    """
    if test.noise_variance is not None:
        return {
            "noise_floor": test.noise_variance,
            "test_mse_over_noise_floor": test.over_noise_floor(measured.overall()["mse"]),
        }
    linear = least_squares(train.x, train.y)
    models: dict[str, Model] = {"mean": mean_of(train.y), "least_squares": linear}
    errors = {name: errors_of(predictions(model, test.x), test.y) for name, model in models.items()}
    metrics: dict[str, Any] = {"baselines": {name: model_errors.overall() for name, model_errors in errors.items()}}
    targets = train.names.target_names
    by_model = {name: some.by_target(targets) for name, some in {"network": measured, **errors}.items()}
    by_target = {target: {name: by_model[name][target] for name in by_model} for target in targets}
    if len(targets) > 1:
        metrics["targets"] = by_target
    metrics["warnings"] = comparisons(by_target, networks) | leaks(by_target, linear.weights, train.names.x_names())
    return metrics


def summary(metrics: dict[str, Any]) -> str:
    """Return the error at the test points, what to compare it with if there is anything, and what intervals cover."""
    text = f"test rmse {metrics['test_rmse']:.4g}"
    if "test_rmse_se" in metrics:
        text += f" ± {metrics['test_rmse_se']:.2g}"
    if baselines := metrics.get("baselines"):
        text += f"; least squares {baselines['least_squares']['rmse']:.4g}, mean {baselines['mean']['rmse']:.4g}"
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
    half_width, remarks = half_width_of(ensemble)

    rows = rows_at_a_time(width(net))
    n, n_output = test.y.shape
    table_rows = TABLE_ROWS // n_output
    in_table, in_errors = (torch.tensor(evenly_spread(n, max(least, table_rows))) for least in (1, FEWEST_ROWS))
    held_back = ensemble.held_back().numel() if ensemble else 0
    with showing(2 * n + len(train.x) + held_back, "prediction") as advance:
        measured = measure((net, twin), test, rows, (in_table, in_errors), half_width, advance)
        train_errors = errors_of((chunk.mean for chunk in predict(net, train.x, rows, advance)), train.y)
        of_rows = of_held_back(net, ensemble, train, rows, advance) if ensemble and held_back else {}

    overall, each, without = measured.scores()
    errors = residuals_of(test, in_errors, measured.in_errors, overall, without, n=n)
    compared = reference_metrics(train, test, measured.errors.of(0), len(each))
    intervals = {} if half_width is None else of_intervals(half_width, measured.covered, n, test.names.target_names)
    # Texts come last: `dvc exp show` shows the metrics in this order.
    texts = {"warnings": few_rows(n) | compared.pop("warnings", {}), "columns": train.decisions}
    metrics = {
        "train_mse": train_errors.overall()["mse"],
        **with_standard_errors("test", overall, errors),
        **of_one(each),
        **of_rows,
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
