"""Restore both saved models, compare them, and measure how well they predict.

data/net.pkl, data/net_params.pkl, data/train.pt, data/test.pt → data/metrics.json, data/predictions.csv.
"""

import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.serialization import safe_globals

from stages import dataset, network, output
from stages.curve import Curve, noise_floor
from stages.errors import UserError
from stages.network import Net, Network
from stages.params import StageParams

CHUNK = 1 << 16  # points predicted together
ROWS = 1000  # of predictions.csv, at most


class Params(StageParams):
    """What this stage reads of params.yaml."""

    generate: Curve
    network: Network


def restore_net(path: str) -> nn.Module:
    """Return the whole module saved by `torch.save(net)`.

    Unpickling can run any code, so only the classes that such a file of ours holds are let in. Raises UserError where
    the file is missing, damaged, or holds anything else.
    """
    with safe_globals([Net, nn.Sequential, nn.Linear, nn.ReLU]):
        return _load(path)


def restore_params(path: str, net: nn.Module) -> nn.Module:
    """Return the network with the parameters saved by `torch.save(net.state_dict())`, in either style."""
    state = _load(path)
    try:
        net.load_state_dict(state)
    except Exception as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: does not fit the network of params.yaml: {why}") from error
    return net


def _load(path: str) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing: run `dvc repro`") from error
    except Exception as error:
        raise UserError(f"{path}: is not a model of this project, or is damaged: run `dvc repro`") from error


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
    net = restore_net("data/net.pkl")
    twin = restore_params(
        "data/net_params.pkl", network.build(params.network.style, x.shape[1], params.network.hidden, y.shape[1])
    )

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
    with output.whole("data/metrics.json") as file:
        file.write((json.dumps(metrics, indent=2) + "\n").encode())

    rows = dataset.evenly(len(test_x), ROWS)
    table = {
        **columns("x", test_x[rows]),
        **columns("y", test_y[rows]),
        **columns("net", prediction[rows]),
        **columns("net_params", twin_prediction[rows]),
    }
    with output.whole("data/predictions.csv") as file:
        file.write((",".join(table) + "\n").encode())
        file.writelines(
            (",".join(f"{value:.9g}" for value in row) + "\n").encode() for row in zip(*table.values(), strict=True)
        )
