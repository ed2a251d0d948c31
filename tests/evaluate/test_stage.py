import csv
import json
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stages import dataset, models, network
from stages.columns import Category, Columns, Feature, Number, Target
from stages.dataset import Dataset
from stages.evaluate import stage as evaluate
from stages.evaluate.baselines import least_squares
from stages.evaluate.predictions import keep_rows, predict, predict_alike
from stages.network import Network
from stages.runtime.errors import UserError
from stages.runtime.spread import evenly_spread
from stages.tabular import Tabular
from tests.conftest import ENVIRONMENT, PROJECT
from tests.forks import start


def numbers(*names: str) -> list[Target]:
    return [Number(name=name) for name in names]


def columns_of(features: list[Feature], *targets: str) -> Columns:
    return Columns(features=features, targets=numbers(*targets))


HOUSES = columns_of([*numbers("area", "a,ge")], "price", 'the "rent"')


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
    columns: Columns | None = None,
    offset: float = 0.0,
) -> nn.Module:
    """Write all that evaluate reads, with a network of random weights."""
    generator = torch.Generator().manual_seed(3)
    net = network.build(network.Network.model_validate({"style": style, "hidden": hidden}), n_feature, n_output, seed=3)
    if columns:
        net = Tabular(net, columns)
    for name, rows in (("train", 30), ("test", points)):
        x = torch.rand(rows, n_feature, generator=generator)
        y = x[:, :1].expand(-1, n_output).square().contiguous()
        dataset.write(f"data/{name}.pt", Dataset(x + offset, y, noise_variance, columns))
    models.save_net("data/net.pkl", net)
    models.save_params("data/net_params.pkl", net)
    return net


def run(style: str = "module", hidden: int = 10) -> str:
    return evaluate.run(
        evaluate.Params(kernels="portable", network=Network.model_validate({"style": style, "hidden": hidden}))
    )


def evaluated(style: str = "module", hidden: int = 10) -> dict[str, Any]:
    run(style, hidden)
    return json.loads(Path("data/metrics.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("n_output", [1, 2])
def test_metrics_are_those_of_numpy_in_float64(n_output: int) -> None:
    net = save(n_feature=2, n_output=n_output)
    metrics = evaluated()
    error = {}
    for name in ("train", "test"):
        x, y, *_ = dataset.read(f"data/{name}.pt")
        error[name] = (net(x).detach().numpy().astype("f8") - y.numpy().astype("f8")).ravel()
    targets = y.numpy().astype("f8")
    squares, absolutes = (
        np.mean(values.reshape(50, -1), axis=1) for values in (error["test"] ** 2, abs(error["test"]))
    )
    assert metrics == pytest.approx(
        {
            "train_mse": np.mean(error["train"] ** 2),
            "test_mse": np.mean(error["test"] ** 2),
            "test_rmse": np.sqrt(np.mean(error["test"] ** 2)),
            "test_rmse_se_of_rows": np.std(squares, ddof=1) / np.sqrt(50) / (2 * np.sqrt(np.mean(squares))),
            "test_mae": np.mean(np.abs(error["test"])),
            "test_mae_se_of_rows": np.std(absolutes, ddof=1) / np.sqrt(50),
            "test_r2": 1 - np.sum(error["test"] ** 2) / np.sum((targets - targets.mean(axis=0)) ** 2),
            "noise_floor": 0.04 / 12,
            "test_mse_over_noise_floor": np.mean(error["test"] ** 2) / (0.04 / 12),
            "max_abs_difference": 0,
            "net_bytes": len(Path("data/net.pkl").read_bytes()),
            "net_params_bytes": len(Path("data/net_params.pkl").read_bytes()),
        },
        rel=1e-12,
    )


def test_metrics_of_points_in_one_chunk_are_those_of_torch_to_the_last_bit() -> None:
    net = save(n_feature=2, points=1000)
    metrics = evaluated()
    x, y, *_ = dataset.read("data/test.pt")
    error = net(x).detach().double() - y.double()
    mse, variance = error.square().mean().item(), (y.double() - y.double().mean(dim=0)).square().mean().item()
    assert metrics["test_mse"] == mse
    assert metrics["test_mae"] == error.abs().mean().item()
    assert metrics["test_r2"] == 1 - mse / variance


def test_metrics_of_each_target_are_those_of_that_target_alone() -> None:
    net = save(n_feature=2, n_output=2, noise_variance=None, columns=HOUSES)
    metrics = evaluated()
    x, y, *_ = dataset.read("data/test.pt")
    for index, name in enumerate(HOUSES.target_names):
        expected = reference(net(x).detach()[:, index], y[:, index])
        assert metrics["targets"][name]["network"] == pytest.approx(expected, rel=1e-12)


def test_a_single_target_has_no_metrics_of_its_own_beside_the_overall_ones() -> None:
    save(n_feature=2, noise_variance=None, columns=columns_of([*numbers("area", "age")], "price"))
    metrics = evaluated()
    assert "targets" not in metrics
    assert all(model.keys() == {"mse", "rmse", "mae", "r2"} for model in metrics["baselines"].values())


def reference(prediction: Tensor, y: Tensor) -> dict[str, float]:
    """Return the metrics as scikit-learn defines them, for all rows and columns at once."""
    errors, deviations = (y.double() - prediction.double()).numpy(), (y.double() - y.double().mean(dim=0)).numpy()
    mse = np.mean(errors**2)
    return {"mse": mse, "rmse": mse**0.5, "mae": np.mean(abs(errors)), "r2": 1 - mse / np.mean(deviations**2)}


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_baselines_are_the_mean_and_least_squares_of_the_training_points(offset: float) -> None:
    save(n_feature=2, n_output=2, noise_variance=None, columns=HOUSES, points=300_001, offset=offset)
    metrics = evaluated()
    (train_x, train_y, *_), (x, y, *_) = dataset.read("data/train.pt"), dataset.read("data/test.pt")
    ones = np.ones((len(train_x), 1))
    weights, *_ = np.linalg.lstsq(np.hstack([train_x.numpy().astype("f8"), ones]), train_y.numpy().astype("f8"))
    linear = torch.from_numpy(x.numpy().astype("f8") @ weights[:-1] + weights[-1])
    for name, prediction in (("mean", train_y.double().mean(dim=0).expand(len(y), -1)), ("least_squares", linear)):
        expected = reference(prediction, y)
        assert metrics["baselines"][name] == pytest.approx(expected, rel=1e-6)
        of_price = metrics["targets"]["price"][name]
        assert of_price == pytest.approx(reference(prediction[:, :1], y[:, :1]), rel=1e-6)


def test_least_squares_copes_with_columns_that_depend_on_each_other() -> None:
    generator = torch.Generator().manual_seed(1)
    category = nn.functional.one_hot(torch.arange(40) % 4).float()  # its columns add up to 1, as the intercept does
    constant, number = torch.full((40, 1), 7.0), torch.rand(40, 1, generator=generator)
    x = torch.cat([category, constant, number, 2 * number], dim=1)
    y = x @ torch.arange(7.0).unsqueeze(1) + 3
    predicted = least_squares(x, y)(x)
    torch.testing.assert_close(predicted, y.double(), rtol=1e-6, atol=1e-6)


def test_a_table_of_more_columns_than_rows_has_a_least_squares_baseline() -> None:
    x, y = torch.rand(5, 9, generator=torch.Generator().manual_seed(1)), torch.arange(5.0).unsqueeze(1)
    torch.testing.assert_close(least_squares(x, y)(x), y.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("n_feature", "n_output"), [(1, 1), (3, 2)])
def test_metrics_of_points_in_many_chunks_are_those_of_all_at_once(n_feature: int, n_output: int) -> None:
    net = save(n_feature=n_feature, n_output=n_output, points=300_001)
    metrics = evaluated()
    x, y, *_ = dataset.read("data/test.pt")
    error = net(x).detach().double() - y.double()
    mse, variance = error.square().mean().item(), (y.double() - y.double().mean(dim=0)).square().mean().item()
    assert metrics["test_mse"] == pytest.approx(mse, rel=1e-6)
    assert metrics["test_mae"] == pytest.approx(error.abs().mean().item(), rel=1e-6)
    assert metrics["test_r2"] == pytest.approx(1 - mse / variance, rel=1e-6)
    assert metrics["max_abs_difference"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the most memory that a process had")
def test_the_memory_beyond_the_points_does_not_grow_with_them() -> None:
    beyond = []
    for points in (1 << 19, 1 << 21):
        save(points=points)
        lines = f"""
            import re
            from pathlib import Path
            from stages.evaluate import stage as evaluate
            from stages.network import Network
            most = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
            before = most()
            evaluate.run(evaluate.Params(kernels="portable", network=Network(style="module", hidden=10)))
            print(most() - before - {8 * points})
        """
        environment, measured = ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}, []
        for _ in range(3):  # what else the process needs now and then only adds to it
            process = start(Path.cwd(), environment, "python", "-c", dedent(lines))
            measured.append(int(process.communicate(timeout=300)[0]))
        beyond.append(min(measured))
    assert beyond[1] - beyond[0] < 10 << 20  # bytes


@pytest.mark.parametrize(
    ("n_feature", "n_output", "got"), [(1, 2, "1 and 2"), (2, 1, "2 and 1"), (2, 2, "2 and 2"), (3, 1, "3 and 1")]
)
def test_test_points_of_other_widths_are_reported(n_feature: int, n_output: int, got: str) -> None:
    save()
    dataset.write("data/test.pt", Dataset(torch.rand(9, n_feature), torch.rand(9, n_output)))
    with pytest.raises(UserError) as told:
        evaluated()
    assert str(told.value) == f"data/test.pt: must have 1 feature and 1 output, like data/train.pt, got {got}"
    assert not Path("data/metrics.json").exists()


def test_points_that_the_models_are_too_narrow_for_are_reported() -> None:
    net = save()
    save(n_feature=2)
    models.save_net("data/net.pkl", net)
    with pytest.raises(
        UserError, match=r"^data/net.pkl: does not hold .*hidden.weight is \(10, 1\) instead of \(10, 2\)"
    ):
        evaluated()


class Forgetful(network.Net):
    """A network that drops hidden values at random while it is trained."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.predict(self.dropout(self.hidden(x).relu()))


def test_networks_are_measured_in_evaluation_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "STYLES", {"module": Forgetful})
    net = save()
    assert net.training
    metrics = evaluated()
    x, y, *_ = dataset.read("data/test.pt")
    assert metrics["test_mse"] == pytest.approx(nn.functional.mse_loss(net.eval()(x), y).item(), rel=1e-5)


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("factor", [1e38, -1e38])
def test_predictions_that_overflow_are_reported_and_nothing_is_written(name: str, factor: float) -> None:
    net = save()
    with torch.no_grad():
        net.get_parameter("hidden.weight").fill_(1)
        net.get_parameter("predict.weight").fill_(factor)
    models.save_net("data/net.pkl", net)
    models.save_params("data/net_params.pkl", net)
    for each in ("train", "test"):
        x = torch.full((70_000, 1), 0.0)
        x[-1] = 10.0 if each == name else 0.0
        dataset.write(f"data/{each}.pt", Dataset(x, x))
    with pytest.raises(UserError) as told:
        evaluated()
    assert str(told.value) == (
        "data/net.pkl: must predict finite values, got nan or inf: "
        "lower train.learning_rate, or look for extreme values in the data"
    )
    assert [path.name for path in Path("data").iterdir() if path.suffix in (".json", ".csv")] == []


def test_a_noise_floor_of_next_to_nothing_has_no_multiple() -> None:
    save(noise_variance=5e-324)
    assert evaluated()["test_mse_over_noise_floor"] is None


def test_metrics_that_have_no_value_are_null_and_standard_errors_are_left_out() -> None:
    save(points=1, noise_variance=0.0)
    metrics = evaluated()
    assert metrics["noise_floor"] == 0
    assert "test_rmse_se_of_rows" not in metrics
    assert metrics["test_r2"] is None
    assert metrics["test_mse_over_noise_floor"] is None


def test_the_yardstick_is_the_noise_floor_where_it_is_known_and_the_baselines_elsewhere() -> None:
    save()
    floor = evaluated()
    save(noise_variance=None)
    assert floor.keys() - evaluated().keys() == {"noise_floor", "test_mse_over_noise_floor"}
    assert evaluated().keys() - floor.keys() == {"baselines", "warnings"}  # the network is not trained


def test_it_says_the_test_error_beside_what_it_is_compared_with() -> None:
    written = " -> data/metrics.json, data/predictions.csv"
    save()
    told, metrics = run(), evaluated()
    rmse, ratio = f"{metrics['test_rmse']:.4g}", f"{metrics['test_mse_over_noise_floor']:.4g}"
    assert told == f"test rmse {rmse}, test mse {ratio} times the noise floor{written}"
    save(noise_variance=0.0)
    assert run() == f"test rmse {rmse}{written}"
    save(n_feature=2, n_output=2, noise_variance=None, columns=HOUSES)
    told, metrics = run(), evaluated()
    network, linear, mean = (
        each["test_rmse" if each is metrics else "rmse"]
        for each in (metrics, metrics["baselines"]["least_squares"], metrics["baselines"]["mean"])
    )
    assert told.splitlines()[-1] == f"test rmse {network:.4g}; least squares {linear:.4g}, mean {mean:.4g}{written}"


def test_warnings_are_said_before_the_test_error_and_stand_in_the_metrics() -> None:
    save(points=29)
    (warning, _), metrics = run().splitlines(), evaluated()
    assert warning == f"warning: {metrics['warnings']['test_rows']}"
    save(points=29, noise_variance=None)
    assert list(evaluated()["warnings"]) == ["test_rows", "worse_than_mean", "worse_than_least_squares"]
    save(points=30)
    assert "warnings" not in evaluated()


def test_what_was_decided_about_the_columns_stands_in_the_metrics_after_all_numbers() -> None:
    save(n_feature=2, noise_variance=None, columns=columns_of([*numbers("area", "age")], "price"))
    decisions = {"age": "2 missing, filled with 31", "name": "left out: 40 texts in 50 training rows"}
    dataset.write("data/train.pt", dataset.read("data/train.pt")._replace(decisions=decisions))
    metrics = evaluated()
    assert metrics["columns"] == decisions
    assert list(metrics)[-2:] == ["warnings", "columns"]


def test_a_target_that_is_the_sum_of_two_features_is_a_leak() -> None:
    columns = columns_of([*numbers("noise", "paid", "unpaid")], "total")
    save(n_feature=3, noise_variance=None, columns=columns)
    for name in ("train", "test"):
        x, *_ = dataset.read(f"data/{name}.pt")
        dataset.write(f"data/{name}.pt", Dataset(x, x[:, 1:2] + 2 * x[:, 2:], columns=columns))
    assert evaluated()["warnings"]["leak"].startswith("least squares predicts total almost exactly from unpaid, paid: ")


@pytest.mark.parametrize(("n_output", "points", "rows"), [(1, 2500, 1000), (3, 2500, 333), (1001, 2, 1)])
def test_predictions_are_a_table_of_at_most_a_thousand_rows_or_one_point(n_output: int, points: int, rows: int) -> None:
    net = save(n_feature=2, n_output=n_output, points=points)
    evaluated()
    with Path("data/predictions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == rows * n_output
    x, y, *_ = dataset.read("data/test.pt")
    for row, index, output in [(table[0], 0, 0), (table[-1], points - 1 if rows > 1 else 0, n_output - 1)]:
        assert row.pop("target") == ("y" if n_output == 1 else f"y_{output}")
        values = {"true": y[index, output], "predicted": net(x[index])[output], "x_0": x[index, 0], "x_1": x[index, 1]}
        expected = {name: value.item() for name, value in values.items()}
        assert {name: float(value) for name, value in row.items()} == pytest.approx(expected, rel=1e-6)


def test_the_table_of_predictions_is_the_same_however_the_points_are_cut() -> None:
    net = save(n_feature=2, points=2500)
    x, *_ = dataset.read("data/test.pt")
    rows = torch.tensor(evenly_spread(2500, 999))
    for chunk_rows in (1, 7, 2500):
        kept = torch.empty(999, 1)
        chunks = list(keep_rows(predict(net, x, chunk_rows, advance=lambda _: None), rows, kept))
        torch.testing.assert_close(torch.cat([chunk.mean for chunk in chunks]), network.predict(net, x))
        torch.testing.assert_close(kept, network.predict(net, x)[rows])


def test_the_predictions_of_a_curve_are_drawn_over_its_only_feature() -> None:
    net = save(points=2)
    evaluated()
    x, y, *_ = dataset.read("data/test.pt")
    table = torch.cat([x, y, net(x).detach()], dim=1).tolist()
    rows = [",".join([*(f"{value:.9g}" for value in row), "y"]) for row in table]
    assert Path("data/predictions.csv").read_text(encoding="utf-8") == "\n".join(["x,y,net,output", *rows, ""])


def test_the_predictions_name_features_and_targets_as_the_table_does() -> None:
    sex = Category(name="sex", levels=["f", "m"])
    columns = columns_of([sex, *numbers("net", "a,ge")], "price", 'the "rent"')
    price, rent = predictions_of([0.0, 1.0, 5.0, 7.0], columns)
    assert list(price) == ["target", "true", "predicted", "sex", "net", "a,ge"]
    assert (price["target"], rent["target"]) == ("price", 'the "rent"')
    assert price["true"] != rent["true"]
    assert (rent["sex"], rent["net"], rent["a,ge"]) == ("m", "5", "7")


def predictions_of(point: list[float], columns: Columns) -> list[dict[str, str]]:
    """Return the rows of predictions.csv for a test set of this point."""
    save(n_feature=len(point), n_output=len(columns.targets), points=1, columns=columns)
    y = torch.rand(1, len(columns.targets))
    dataset.write("data/test.pt", Dataset(torch.tensor([point]), y, 0.0, columns))
    evaluated()
    with Path("data/predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_feature_named_like_another_column_of_a_chart_has_another_name() -> None:
    names = ["rev", "field", "filename", "step", "target", "true", "predicted", "feature rev", "x"]
    (row,) = predictions_of([float(index) for index in range(len(names))], columns_of([*numbers(*names)], "y"))
    features = {name: value for name, value in row.items() if name not in ("target", "true", "predicted")}
    renamed = [f"feature {name}" for name in names[:7]] + ["feature feature rev", "x"]
    assert features == {name: str(index) for index, name in enumerate(renamed)}


def test_a_category_called_x_is_no_curve() -> None:
    (row,) = predictions_of([0.0, 1.0], columns_of([Category(name="x", levels=["f", "m"])], "y"))
    assert (row["target"], row["x"]) == ("y", "m")


def test_test_points_with_other_columns_are_reported() -> None:
    save(n_feature=2, columns=columns_of([*numbers("a", "b")], "y"))
    points = dataset.read("data/test.pt")
    dataset.write("data/test.pt", points._replace(columns=columns_of([*numbers("b", "a")], "y")))
    with pytest.raises(
        UserError, match="^data/test.pt: must have the same columns as data/train.pt, in the same order"
    ):
        evaluated()


def test_one_bit_of_difference_ends_the_stage() -> None:
    net = save()
    with torch.no_grad():
        bias = net.get_parameter("predict.bias")
        bias.copy_(torch.nextafter(bias, torch.tensor(9.0)))
    models.save_params("data/net_params.pkl", net)
    with pytest.raises(UserError, match="predict differently: run `dvc repro --force train`$"):
        evaluated()
    assert not Path("data/metrics.json").exists()


class Constant(nn.Module):
    """Predicts the same value for every point."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 1), self.value)


@pytest.mark.parametrize(("value", "other"), [(0.0, -0.0), (-0.0, 0.0), (1.0, 1.0000001)])
def test_predictions_are_compared_as_bits(value: float, other: float) -> None:
    x = torch.zeros(5, 1)
    (same,) = predict_alike(Constant(value), Constant(value), x, 5, advance=lambda _: None, differences=[])
    assert same.mean.tolist() == [[value]] * 5
    with pytest.raises(UserError, match="predict differently: run `dvc repro --force train`$"):
        list(predict_alike(Constant(value), Constant(other), x, 5, advance=lambda _: None, differences=[]))
