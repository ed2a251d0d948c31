"""Restore both saved models, compare them, and measure how well they predict.

data/net.pkl, data/net_params.pkl, data/train.pt, data/test.pt → data/metrics.json, data/predictions.csv.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from stages import dataset, files
from stages.dataset import Dataset
from stages.errors import UserError, counted
from stages.evaluate.metrics import regression_metrics
from stages.models import restore_net, restore_params
from stages.network import Network
from stages.params import StageParams

CHUNK_VALUES = 3 << 18  # predicted at a time, those of the layers between counted: 3 MiB
TABLE_ROWS = 1000  # of predictions.csv, at most


class Params(StageParams):
    """What this stage reads of params.yaml."""

    network: Network


@torch.no_grad()
def predict(net: nn.Module, x: Tensor, rows: int) -> Iterator[Tensor]:
    """Yield the predictions for x, (n, n_feature), so many rows at a time: (rows, n_output).

    Raises UserError where they are not finite.
    """
    for chunk in x.split(rows):
        prediction = net(chunk)
        if not prediction.isfinite().all():
            raise UserError("data/net.pkl: must predict finite values, got nan or inf: lower train.learning_rate")
        yield prediction


def largest_difference(net: nn.Module, twin: nn.Module, x: Tensor, rows: int) -> float:
    """Return the largest absolute difference between the predictions of both networks for x, (n, n_feature).

    Raises UserError where they differ at all, be it by the sign of a zero.
    """
    difference = 0.0
    for prediction, other in zip(predict(net, x, rows), predict(twin, x, rows), strict=True):
        if not torch.equal(prediction.view(torch.int32), other.view(torch.int32)):  # bits, not values: -0
            raise UserError("data/net.pkl and data/net_params.pkl predict differently: run `dvc repro --force train`")
        difference = max(difference, (prediction - other).abs().max().item())
    return difference


def columns(name: str, values: Tensor) -> dict[str, list[float]]:
    """Return the columns of values, (n, k), by name: `y`, or `y_0`, `y_1`, … where k > 1."""
    names = [name] if values.shape[1] == 1 else [f"{name}_{index}" for index in range(values.shape[1])]
    return dict(zip(names, values.T.tolist(), strict=True))


def over_floor(mse: float, floor: float | None) -> float | None:
    """Return how many times the noise floor a mean squared error is; None where it is not known, or all but 0."""
    ratio = mse / floor if floor else math.inf
    return ratio if math.isfinite(ratio) else None


def check_widths(train: Dataset, test: Dataset) -> None:
    """Raise UserError where the test points are not as wide as the training points."""
    (n_feature, n_output), found = [(points.x.shape[1], points.y.shape[1]) for points in (train, test)]
    if found != (n_feature, n_output):
        wanted = f"{counted(n_feature, 'feature')} and {counted(n_output, 'output')} as data/train.pt has"
        raise UserError(f"data/test.pt: must have {wanted}, got {found[0]} and {found[1]}")


def run(params: Params) -> None:
    """Read the points and models, compare and measure, write metrics and predictions."""
    train, test = dataset.read("data/train.pt"), dataset.read("data/test.pt")
    check_widths(train, test)
    sizes = train.x.shape[1], params.network.hidden, train.y.shape[1]
    net = restore_net("data/net.pkl", *sizes).eval()  # Dropout and the like are for training
    twin = restore_params("data/net_params.pkl", params.network.style, *sizes).eval()

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

    shown = dataset.evenly_spread(len(test.x), TABLE_ROWS)
    x = test.x[shown]
    table = {
        **columns("x", x),
        **columns("y", test.y[shown]),
        **columns("net", torch.cat(list(predict(net, x, rows)))),
        **columns("net_params", torch.cat(list(predict(twin, x, rows)))),
    }
    with files.writing("data/predictions.csv") as file:
        file.write((",".join(table) + "\n").encode())
        file.writelines(
            (",".join(f"{value:.9g}" for value in row) + "\n").encode() for row in zip(*table.values(), strict=True)
        )
