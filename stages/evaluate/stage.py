"""Restore both saved models, compare them, and measure how well they predict.

data/net.pkl, data/net_params.pkl, data/train.pt, data/test.pt → data/metrics.json, data/predictions.csv.
"""

import json
import math
from pathlib import Path

import torch

from stages import dataset, files
from stages.dataset import Dataset
from stages.errors import UserError, counted
from stages.evaluate.metrics import regression_metrics
from stages.evaluate.predictions import largest_difference, predict, write_predictions
from stages.models import restore_net, restore_params
from stages.network import Network
from stages.params import StageParams

CHUNK_VALUES = 3 << 18  # inputs, hidden and outputs, of the points predicted at a time: 3 MiB
TABLE_ROWS = 1000  # of predictions.csv, at most, but at least one point


class Params(StageParams):
    """What this stage reads from params.yaml."""

    network: Network


def over_floor(mse: float, floor: float | None) -> float | None:
    """Return a mean squared error over the noise floor; None if the floor is unknown, 0, or too small to divide by."""
    ratio = mse / floor if floor else math.inf
    return ratio if math.isfinite(ratio) else None


def check_widths(train: Dataset, test: Dataset) -> None:
    """Raise UserError if the test points have other numbers of features or outputs than the training points."""
    (n_feature, n_output), found = [(points.x.shape[1], points.y.shape[1]) for points in (train, test)]
    if found != (n_feature, n_output):
        wanted = f"{counted(n_feature, 'feature')} and {counted(n_output, 'output')}, like data/train.pt"
        raise UserError(f"data/test.pt: must have {wanted}, got {found[0]} and {found[1]}")


def run(params: Params) -> None:
    """Read the points and models, compare and measure, write metrics and predictions."""
    train, test = dataset.read("data/train.pt"), dataset.read("data/test.pt")
    check_widths(train, test)
    sizes = train.x.shape[1], params.network.hidden, train.y.shape[1]
    net = restore_net("data/net.pkl", *sizes)
    twin = restore_params("data/net_params.pkl", params.network.style, *sizes)

    rows = max(1, CHUNK_VALUES // sum(sizes))
    difference = largest_difference(net, twin, test.x, rows)
    measured = regression_metrics(predict(net, test.x, rows), test.y)
    metrics = {
        "train_mse": regression_metrics(predict(net, train.x, rows), train.y)["mse"],
        **{f"test_{name}": value for name, value in measured.items()},
        "noise_floor": test.noise_variance,
        "test_mse_over_noise_floor": over_floor(measured["mse"], test.noise_variance),
        "max_abs_difference": difference,
        "net_bytes": Path("data/net.pkl").stat().st_size,
        "net_params_bytes": Path("data/net_params.pkl").stat().st_size,
    }
    with files.writing("data/metrics.json") as file:
        file.write((json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())

    shown = dataset.evenly_spread(len(test.x), max(1, TABLE_ROWS // test.y.shape[1]))
    prediction = torch.cat(list(predict(net, test.x[shown], rows)))
    write_predictions("data/predictions.csv", test.x[shown], test.y[shown], prediction)
