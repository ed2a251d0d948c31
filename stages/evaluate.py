"""Restore both saved models, compare them, and measure how well they predict.

data/net.pkl, data/net_params.pkl, data/train.pt, data/test.pt → data/metrics.json, data/predictions.csv.
"""

import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from stages import dataset, files
from stages.curve import Curve, noise_floor
from stages.errors import UserError
from stages.network import Network
from stages.params import StageParams
from stages.saved import restore_net, restore_params

CHUNK = 1 << 16  # points predicted together
ROWS = 1000  # of predictions.csv, at most


class Params(StageParams):
    """What this stage reads of params.yaml."""

    generate: Curve
    network: Network


@torch.no_grad()
def predict(net: nn.Module, x: Tensor) -> Tensor:
    """Return the predictions for x, (n, n_feature): (n, n_output)."""
    return torch.cat([net(chunk) for chunk in x.split(CHUNK)])


def regression_metrics(prediction: Tensor, y: Tensor) -> dict[str, float | None]:
    """Return mse (units of y²), rmse and mae (units of y) and r2, over all elements, computed in float64.

    r2 = 1 - Σ(y - prediction)² / Σ(y - mean y)²; None where all y are the same.
    """
    y = y.double()
    error = prediction.double() - y
    mse, variance = error.square().mean().item(), (y - y.mean(dim=0)).square().mean().item()
    return {
        "mse": mse,
        "rmse": math.sqrt(mse),
        "mae": error.abs().mean().item(),
        "r2": 1 - mse / variance if variance else None,
    }


def columns(name: str, values: Tensor) -> dict[str, list[float]]:
    """Return the columns of values, (n, k), by name: `y`, or `y_0`, `y_1`, … where k > 1."""
    names = [name] if values.shape[1] == 1 else [f"{name}_{index}" for index in range(values.shape[1])]
    return dict(zip(names, values.T.tolist(), strict=True))


def run(params: Params) -> None:
    """Read the points and models, compare and measure, write metrics and predictions."""
    x, y = dataset.read("data/train.pt")
    test_x, test_y = dataset.read("data/test.pt")
    sizes = x.shape[1], params.network.hidden, y.shape[1]
    net = restore_net("data/net.pkl", *sizes)
    twin = restore_params("data/net_params.pkl", params.network.style, *sizes)

    prediction, twin_prediction = predict(net, test_x), predict(twin, test_x)
    if not torch.equal(prediction.view(torch.int32), twin_prediction.view(torch.int32)):  # bits, not values: nan, -0
        raise UserError("data/net.pkl and data/net_params.pkl predict differently: run `dvc repro --force train`")

    floor = noise_floor(params.generate.noise)
    test = regression_metrics(prediction, test_y)
    metrics = {
        "train_mse": regression_metrics(predict(net, x), y)["mse"],
        **{f"test_{name}": value for name, value in test.items()},
        "noise_floor": floor,
        "test_mse_over_noise_floor": test["mse"] / floor if floor else None,
        "max_abs_difference": (prediction - twin_prediction).abs().max().item(),
        "net_bytes": Path("data/net.pkl").stat().st_size,
        "net_params_bytes": Path("data/net_params.pkl").stat().st_size,
    }
    with files.whole("data/metrics.json") as file:
        file.write((json.dumps(metrics, indent=2) + "\n").encode())

    rows = dataset.evenly(len(test_x), ROWS)
    table = {
        **columns("x", test_x[rows]),
        **columns("y", test_y[rows]),
        **columns("net", prediction[rows]),
        **columns("net_params", twin_prediction[rows]),
    }
    with files.whole("data/predictions.csv") as file:
        file.write((",".join(table) + "\n").encode())
        file.writelines(
            (",".join(f"{value:.9g}" for value in row) + "\n").encode() for row in zip(*table.values(), strict=True)
        )
