"""Restore both saved models, compare them, and measure how well they predict.

data/net.pkl, data/net_params.pkl, data/train.pt, data/test.pt → data/metrics.json, data/predictions.csv.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages import dataset
from stages.dataset import Dataset
from stages.ensemble import width
from stages.evaluate.baselines import Model, least_squares, mean_of, predictions
from stages.evaluate.metrics import Errors, errors_of
from stages.evaluate.predictions import keep_rows, predict, predict_alike, write_predictions
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


class Params(StageParams):
    """What this stage reads from params.yaml."""

    network: Network


def reference_metrics(train: Dataset, test: Dataset, measured: Errors) -> dict[str, Any]:
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
    metrics["warnings"] = comparisons(by_target) | leaks(by_target, linear.weights, train.names.x_names())
    return metrics


def summary(metrics: dict[str, Any]) -> str:
    """Return the error at the test points, and what to compare it with if there is anything."""
    error = f"test rmse {metrics['test_rmse']:.4g}"
    if baselines := metrics.get("baselines"):
        return f"{error}; least squares {baselines['least_squares']['rmse']:.4g}, mean {baselines['mean']['rmse']:.4g}"
    ratio = metrics["test_mse_over_noise_floor"]
    return error if ratio is None else f"{error}, test mse {ratio:.4g} times the noise floor"


def check_columns(train: Dataset, test: Dataset) -> None:
    """Raise UserError if the test points have other columns, or another number of them, than the training points."""
    n_feature, n_output = train.x.shape[1], train.y.shape[1]
    if test.x.shape[1] != n_feature or test.y.shape[1] != n_output:
        wanted = f"{counted(n_feature, 'feature')} and {counted(n_output, 'output')}, like data/train.pt"
        raise UserError(f"data/test.pt: must have {wanted}, got {test.x.shape[1]} and {test.y.shape[1]}")
    if test.columns != train.columns:
        raise UserError("data/test.pt: must have the same columns as data/train.pt, in the same order")


def run(params: Params) -> str:
    """Read the points and models, compare and measure, write metrics and predictions; return warnings and the error."""
    train, test = dataset.read("data/train.pt"), dataset.read("data/test.pt")
    check_columns(train, test)
    blueprint = Blueprint.of(train, params.network)
    net = restore_net("data/net.pkl", blueprint)
    twin = restore_params("data/net_params.pkl", blueprint)

    rows = rows_at_a_time(width(net))
    in_table = torch.tensor(evenly_spread(len(test.x), max(1, TABLE_ROWS // test.y.shape[1])))
    table_predictions: list[Tensor] = []
    differences: list[float] = []
    with showing(2 * len(test.x) + len(train.x), "prediction") as advance:
        test_predictions = predict_alike(net, twin, test.x, rows, advance, differences)
        measured = errors_of(keep_rows(test_predictions, in_table, table_predictions), test.y)
        train_mse = errors_of(predict(net, train.x, rows, advance), train.y).overall()["mse"]
    compared = reference_metrics(train, test, measured)
    # Texts come last: `dvc exp show` shows the metrics in this order.
    texts = {"warnings": few_rows(len(test.x)) | compared.pop("warnings", {}), "columns": train.decisions}
    metrics = {
        "train_mse": train_mse,
        **{f"test_{name}": value for name, value in measured.overall().items()},
        **compared,
        "max_abs_difference": max(differences),
        "net_bytes": Path("data/net.pkl").stat().st_size,
        "net_params_bytes": Path("data/net_params.pkl").stat().st_size,
        **{name: lines for name, lines in texts.items() if lines},
    }
    with files.writing("data/metrics.json") as file:
        file.write((json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())

    prediction = torch.cat(table_predictions)
    write_predictions("data/predictions.csv", test.names, test.x[in_table], test.y[in_table], prediction)
    warnings = [f"warning: {line}" for line in metrics.get("warnings", {}).values()]
    return "\n".join([*warnings, f"{summary(metrics)} -> data/metrics.json, data/predictions.csv"])
