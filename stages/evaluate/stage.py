"""Restore both saved models, compare them, and measure how well they predict.

data/net.pkl, data/net_params.pkl, data/train.pt, data/test.pt → data/metrics.json, data/predictions.csv.
"""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from stages import dataset, files
from stages.errors import UserError
from stages.evaluate.metrics import regression_metrics
from stages.models import restore_net, restore_params
from stages.network import Network
from stages.params import StageParams

CHUNK_ROWS = 1 << 16  # predicted at a time
TABLE_ROWS = 1000  # of predictions.csv, at most


class Params(StageParams):
    """What this stage reads of params.yaml."""

    network: Network


@torch.no_grad()
def predict(net: nn.Module, x: Tensor) -> Tensor:
    """Return the predictions for x, (n, n_feature): (n, n_output)."""
    return torch.cat([net(chunk) for chunk in x.split(CHUNK_ROWS)])


def columns(name: str, values: Tensor) -> dict[str, list[float]]:
    """Return the columns of values, (n, k), by name: `y`, or `y_0`, `y_1`, … where k > 1."""
    names = [name] if values.shape[1] == 1 else [f"{name}_{index}" for index in range(values.shape[1])]
    return dict(zip(names, values.T.tolist(), strict=True))


def run(params: Params) -> None:
    """Read the points and models, compare and measure, write metrics and predictions."""
    train, test = dataset.read("data/train.pt"), dataset.read("data/test.pt")
    sizes = train.x.shape[1], params.network.hidden, train.y.shape[1]
    net = restore_net("data/net.pkl", *sizes)
    twin = restore_params("data/net_params.pkl", params.network.style, *sizes)

    prediction, twin_prediction = predict(net, test.x), predict(twin, test.x)
    if not torch.equal(prediction.view(torch.int32), twin_prediction.view(torch.int32)):  # bits, not values: nan, -0
        raise UserError("data/net.pkl and data/net_params.pkl predict differently: run `dvc repro --force train`")

    measured = regression_metrics(prediction, test.y)
    floor = test.noise_variance
    metrics = {
        "train_mse": regression_metrics(predict(net, train.x), train.y)["mse"],
        **{f"test_{name}": value for name, value in measured.items()},
        "noise_floor": floor,
        "test_mse_over_noise_floor": measured["mse"] / floor if floor else None,
        "max_abs_difference": (prediction - twin_prediction).abs().max().item(),
        "net_bytes": Path("data/net.pkl").stat().st_size,
        "net_params_bytes": Path("data/net_params.pkl").stat().st_size,
    }
    with files.writing("data/metrics.json") as file:
        file.write((json.dumps(metrics, indent=2) + "\n").encode())

    rows = dataset.evenly_spread(len(test.x), TABLE_ROWS)
    table = {
        **columns("x", test.x[rows]),
        **columns("y", test.y[rows]),
        **columns("net", prediction[rows]),
        **columns("net_params", twin_prediction[rows]),
    }
    with files.writing("data/predictions.csv") as file:
        file.write((",".join(table) + "\n").encode())
        file.writelines(
            (",".join(f"{value:.9g}" for value in row) + "\n").encode() for row in zip(*table.values(), strict=True)
        )
