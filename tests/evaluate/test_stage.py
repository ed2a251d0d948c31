import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from stages import dataset, models, network
from stages.dataset import Dataset
from stages.errors import UserError
from stages.evaluate import stage as evaluate
from stages.network import Network


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(
    style: str = "module",
    n_feature: int = 1,
    n_output: int = 1,
    hidden: int = 10,
    points: int = 50,
    noise_variance: float | None = 0.04 / 12,
) -> nn.Module:
    """Write all that evaluate reads, with a network of random weights."""
    generator = torch.Generator().manual_seed(3)
    net = network.build(style, n_feature, hidden, n_output, seed=3)
    for name, rows in (("train", 30), ("test", points)):
        x = torch.rand(rows, n_feature, generator=generator)
        dataset.write(
            f"data/{name}.pt", Dataset(x, x[:, :1].expand(-1, n_output).square().contiguous(), noise_variance)
        )
    models.save_net("data/net.pkl", net)
    models.save_params("data/net_params.pkl", net)
    return net


def evaluated(style: str = "module", hidden: int = 10) -> dict[str, Any]:
    evaluate.run(
        evaluate.Params(kernels="portable", network=Network.model_validate({"style": style, "hidden": hidden}))
    )
    return json.loads(Path("data/metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("n_output", [1, 2])
def test_metrics_are_those_of_numpy_in_float64(n_output: int) -> None:
    net = save(n_feature=2, n_output=n_output)
    metrics = evaluated()
    error = {}
    for name in ("train", "test"):
        x, y, _ = dataset.read(f"data/{name}.pt")
        error[name] = (net(x).detach().numpy().astype("f8") - y.numpy().astype("f8")).ravel()
    targets = y.numpy().astype("f8")
    assert metrics == pytest.approx(
        {
            "train_mse": np.mean(error["train"] ** 2),
            "test_mse": np.mean(error["test"] ** 2),
            "test_rmse": np.sqrt(np.mean(error["test"] ** 2)),
            "test_mae": np.mean(np.abs(error["test"])),
            "test_r2": 1 - np.sum(error["test"] ** 2) / np.sum((targets - targets.mean(axis=0)) ** 2),
            "noise_floor": 0.04 / 12,
            "test_mse_over_noise_floor": np.mean(error["test"] ** 2) / (0.04 / 12),
            "max_abs_difference": 0,
            "net_bytes": len(Path("data/net.pkl").read_bytes()),
            "net_params_bytes": len(Path("data/net_params.pkl").read_bytes()),
        },
        rel=1e-12,
    )


@pytest.mark.parametrize("noise_variance", [None, 0.0])
def test_metrics_that_have_no_value_are_null(noise_variance: float | None) -> None:
    save(points=1, noise_variance=noise_variance)
    metrics = evaluated()
    assert metrics["noise_floor"] == noise_variance
    assert metrics["test_r2"] is None
    assert metrics["test_mse_over_noise_floor"] is None


def test_predictions_are_a_table_of_at_most_a_thousand_rows() -> None:
    net = save(points=2500)
    evaluated()
    with Path("data/predictions.csv").open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert len(rows) == 1000
    x, y, _ = dataset.read("data/test.pt")
    for row, index in ((rows[0], 0), (rows[-1], 2499)):
        prediction = net(x[index]).item()
        expected = {"x": x[index].item(), "y": y[index].item(), "net": prediction, "net_params": prediction}
        assert row == pytest.approx(expected, rel=1e-6)


def test_several_features_and_outputs_have_a_column_each() -> None:
    save(n_feature=2, n_output=2)
    evaluated()
    header = Path("data/predictions.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "x_0,x_1,y_0,y_1,net_0,net_1,net_params_0,net_params_1"


def test_one_bit_of_difference_ends_the_stage() -> None:
    net = save()
    with torch.no_grad():
        bias = net.get_parameter("predict.bias")
        bias.copy_(torch.nextafter(bias, torch.tensor(9.0)))
    models.save_params("data/net_params.pkl", net)
    with pytest.raises(UserError, match="predict differently: run `dvc repro --force train`$"):
        evaluated()
    assert not Path("data/metrics.json").exists()


def test_minus_zero_is_not_zero() -> None:
    net = save()
    for sign, path, save_as in (
        (0.0, "data/net.pkl", models.save_net),
        (-0.0, "data/net_params.pkl", models.save_params),
    ):
        with torch.no_grad():
            for values in net.parameters():
                values.fill_(sign)
        net.get_parameter("hidden.bias").data.fill_(-1.0)  # relu gives 0; -0 · 0 + -0 is -0
        save_as(path, net)
    with pytest.raises(UserError, match="predict differently"):
        evaluated()
