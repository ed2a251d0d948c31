"""Several networks: their metrics by hand in NumPy's float64, and what their intervals cover."""

import csv
import json
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from stages import dataset, models, residuals
from stages.columns import Columns, Number
from stages.dataset import Dataset
from stages.ensemble import Ensemble, Stack, networks_of
from stages.evaluate import stage as evaluate
from stages.folds import Folds
from stages.generate.curve import quadratic
from stages.models import Blueprint
from stages.network import Network
from stages.runtime.errors import UserError
from stages.runtime.spread import evenly_spread
from stages.tabular import Tabular, ensemble_of
from stages.train import stage as train
from stages.train.held_out import measure_held_out
from stages.train.settings import Train
from tests.conftest import ENVIRONMENT, PROJECT
from tests.forks import start

SECTION = Network.model_validate({"style": "module", "hidden": 6})
NAMES = Columns(features=[Number(name="area"), Number(name="age")], targets=[Number(name="price"), Number(name="rent")])


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def points(n: int, n_output: int, seed: int, columns: Columns | None = None) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1 if columns is None else 2, generator=generator)
    y = x[:, :1] ** 2 + torch.rand(n, n_output, generator=generator) * torch.arange(1, n_output + 1)
    return Dataset(x, y, None if columns else 1 / 12, columns, digest="0a" if columns else None)


def save(
    networks: int = 3, held_back: int = 12, columns: Columns | None = None, test_points: int = 50, rows: int = 60
) -> nn.Module:
    """Write all that evaluate reads, with networks of random weights."""
    n_output = 2 if columns else 1
    trained_on, tested_on = points(rows, n_output, 1, columns), points(test_points, n_output, 2, columns)
    model = Blueprint.of(trained_on, SECTION, networks).build(seed=5)
    in_units = trained_on
    if isinstance(model, Tabular):
        model.fit(trained_on.x, trained_on.y)
        in_units = trained_on._replace(x=trained_on.x.clone(), y=trained_on.y.clone())
        model.standardize_(in_units.x, in_units.y)
    measure_held_out(model, in_units, Folds(rows, held_back, networks, seed=7))
    dataset.write("data/train.pt", trained_on)
    dataset.write("data/test.pt", tested_on)
    write(model)
    return model


def write(model: nn.Module, path: str = "") -> None:
    if path != "data/net_params.pkl":
        models.save_net("data/net.pkl", model)
    if path != "data/net.pkl":
        models.save_params("data/net_params.pkl", model)


def run() -> str:
    return evaluate.run(evaluate.Params(kernels="portable", network=SECTION))


def evaluated() -> dict[str, Any]:
    run()
    return json.loads(Path("data/metrics.json").read_text(encoding="utf-8"))


def by_hand(model: nn.Module, x: torch.Tensor) -> np.ndarray:
    """Return what each network predicts, float64 (networks, n, n_output), from its weights alone."""
    net, stack, values = model, networks_of(model), x.double().numpy()
    assert stack
    if isinstance(net, Tabular):
        values = (values - net.x_mean.numpy()) / net.x_deviation.numpy()
    w1, b1, w2, b2 = (parameter.detach().double().numpy() for parameter in stack.parameters())
    y = np.stack(
        [np.maximum(values @ w1[j].T + b1[j], 0) @ w2[j].T + b2[j] for j in range(stack.networks)]
    )  # (networks, n, n_output)
    return y * net.y_deviation.numpy() + net.y_mean.numpy() if isinstance(net, Tabular) else y


class Scores(NamedTuple):
    mse: float
    rmse: float
    mae: float
    r2: float


def scores(prediction: np.ndarray, y: np.ndarray) -> Scores:
    error, deviation = prediction - y, y - y.mean(axis=0)
    mse = np.mean(error**2)
    return Scores(mse, mse**0.5, np.mean(abs(error)), 1 - np.sum(error**2) / np.sum(deviation**2))


def variances_of_rows(prediction: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return those of the root mean squared error and of the mean absolute error."""
    squares, absolutes = ((prediction - y) ** 2).mean(axis=1), abs(prediction - y).mean(axis=1)
    return np.var(squares, ddof=1) / len(y) / (4 * squares.mean()), np.var(absolutes, ddof=1) / len(y)


@pytest.mark.parametrize("test_points", [50, 70_001])
@pytest.mark.parametrize("columns", [None, NAMES])
def test_metrics_of_several_networks_are_those_of_numpy_in_float64(columns: Columns | None, test_points: int) -> None:
    model, metrics = save(4, 9, columns, test_points), evaluated()
    ensemble, test, trained_on = ensemble_of(model), dataset.read("data/test.pt"), dataset.read("data/train.pt")
    assert ensemble
    each, y = by_hand(model, test.x), test.y.double().numpy()
    overall, single = scores(each.mean(axis=0), y), [scores(prediction, y) for prediction in each]
    without = [scores(np.delete(each, network, axis=0).mean(axis=0), y) for network in range(4)]
    expected: dict[str, Any] = {f"test_{name}": value for name, value in overall._asdict().items()}
    for name, of_networks in {name: [getattr(one, name) for one in single] for name in Scores._fields}.items():
        expected |= {
            f"test_{name}_of_one": np.mean(of_networks),
            f"test_{name}_of_one_std": np.std(of_networks, ddof=1),
        }
    shown = np.array(evenly_spread(test_points, 500 if columns else 1000))
    of_rows = variances_of_rows(each.mean(axis=0)[shown], y[shown])
    for name, variance in zip(("rmse", "mae"), of_rows, strict=True):
        jackknife = (
            3 / 4 * sum((getattr(one, name) - np.mean([getattr(w, name) for w in without])) ** 2 for one in without)
        )
        expected[f"test_{name}_se"] = np.sqrt(variance * len(shown) / test_points + jackknife)

    sums, counts = np.zeros((60, y.shape[1])), np.zeros((60, 1))
    trained = by_hand(model, trained_on.x)
    for network, rows in enumerate(ensemble.held_back().numpy()):
        sums[rows] += trained[network, rows]
        counts[rows] += 1
    known = counts[:, 0] > 0
    held_out, true = (sums[known] / counts[known]), trained_on.y.double().numpy()[known]
    expected |= {f"cv_{name}": value for name, value in scores(held_out, true)._asdict().items()}
    for name, variance in zip(("rmse", "mae"), variances_of_rows(held_out, true), strict=True):
        expected[f"cv_{name}_se_of_rows"] = np.sqrt(variance)

    half_width = np.sort(abs(held_out - true), axis=0)[int(np.ceil(0.9 * (known.sum() + 1))) - 1]
    coverage = (abs(each.mean(axis=0) - y) <= half_width).mean(axis=0)
    if columns:
        shares, widths = metrics.pop("interval_coverage"), metrics.pop("interval_half_width")
        assert shares == pytest.approx(dict(zip(("price", "rent"), coverage, strict=True)), abs=2 / test_points)
        assert widths == pytest.approx(dict(zip(("price", "rent"), half_width, strict=True)), rel=1e-5)
    else:
        assert metrics.pop("interval_coverage") == pytest.approx(coverage[0], abs=2 / test_points)
        assert metrics.pop("interval_half_width") == pytest.approx(half_width[0], rel=1e-5)
    assert metrics.pop("interval_level") == 0.9
    found = {name: value for name, value in metrics.items() if name.startswith(("test_", "cv_", "interval_"))}
    found.pop("test_mse_over_noise_floor", None)
    assert found == pytest.approx(expected, rel=1e-4)
    assert metrics["train_mse"] == pytest.approx(
        scores(trained.mean(axis=0), trained_on.y.double().numpy()).mse, rel=1e-5
    )


@pytest.mark.parametrize("columns", [None, NAMES])
def test_the_tables_show_what_the_model_predicts_to_the_last_bit(columns: Columns | None) -> None:
    model = save(5, 12, columns, test_points=2500).eval()
    run()
    ensemble = ensemble_of(model)
    assert ensemble
    test, half_width = dataset.read("data/test.pt"), ensemble.half_width(0.9)
    rows = evenly_spread(2500, 500 if columns else 1000)
    with torch.no_grad():
        predicted, true = model(test.x)[rows], test.y[rows]
    with Path("data/predictions.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0])[:5] == (
        ["target", "true", "predicted", "low", "high"] if columns else ["x", "y", "net", "low", "high"]
    )
    for name, values in (
        ("predicted" if columns else "net", predicted),
        ("low", predicted - half_width),
        ("high", predicted + half_width),
    ):
        assert [row[name] for row in table] == [f"{value:.9g}" for value in values.flatten().tolist()]
    errors = residuals.read("data/errors.csv")
    assert errors.rows.tolist() == rows
    assert (errors.n, errors.table, errors.targets) == (2500, test.digest or "", test.names.target_names)
    np.testing.assert_allclose(errors.errors, (predicted.double() - true.double()).numpy(), rtol=1e-8)
    np.testing.assert_allclose(errors.true, true.numpy(), rtol=1e-8)


def test_errors_of_each_network_left_out_are_those_of_all_rows() -> None:
    model, metrics = save(3, test_points=70_001), evaluated()
    errors, test = residuals.read("data/errors.csv"), dataset.read("data/test.pt")
    assert errors.overall == {name: metrics[f"test_{name}"] for name in ("rmse", "mae")}
    each, y = by_hand(model, test.x), test.y.double().numpy()
    for metric, found in errors.without.items():
        without = [getattr(scores(np.delete(each, j, axis=0).mean(axis=0), y), metric) for j in range(3)]
        np.testing.assert_allclose(found, without, rtol=1e-6)


def test_there_are_no_errors_of_networks_left_out_where_there_is_one_network() -> None:
    save(networks=1)
    metrics = evaluated()
    assert residuals.read("data/errors.csv").without["rmse"].tolist() == []
    names = ("mse", "rmse", "rmse_se_of_rows", "mae", "mae_se_of_rows", "r2")
    others = ["noise_floor", "test_mse_over_noise_floor", "max_abs_difference", "net_bytes", "net_params_bytes"]
    assert list(metrics) == ["train_mse", *(f"test_{name}" for name in names), *others]
    assert Path("data/predictions.csv").read_text(encoding="utf-8").startswith("x,y,net,output\n")


def test_errors_of_many_targets_are_those_of_a_hundred_rows() -> None:
    test = Dataset(torch.rand(500, 1), torch.rand(500, 30), 1.0)
    dataset.write("data/train.pt", test)
    dataset.write("data/test.pt", test)
    write(Blueprint.of(test, SECTION).build())
    run()
    assert len(residuals.read("data/errors.csv").rows) == 100


def test_it_says_standard_error_and_coverage_of_several_networks_in_its_line() -> None:
    save()
    told, metrics = run(), evaluated()
    error = f"{metrics['test_rmse']:.4g} ± {metrics['test_rmse_se']:.2g}"
    ratio, coverage = f"{metrics['test_mse_over_noise_floor']:.4g}", f"{metrics['interval_coverage']:.1%}"
    assert told == (
        f"test rmse {error}, test mse {ratio} times the noise floor; 90% intervals cover {coverage} of the test points"
        " -> data/metrics.json, data/predictions.csv"
    )
    save(columns=NAMES)
    *_, told = run().splitlines()
    price, rent = (f"{share:.1%}" for share in evaluated()["interval_coverage"].values())
    assert f"; 90% intervals cover {price} and {rent} of the test points -> " in told


@pytest.mark.parametrize(
    ("held_back", "cure"),
    [
        (0, "set train.validation_fraction, for instance to 0.1"),
        (2, "only 6 training rows held back: raise train.networks or train.validation_fraction"),
    ],
)
def test_networks_that_held_back_too_little_for_intervals_say_what_to_do(held_back: int, cure: str) -> None:
    save(held_back=held_back)
    remark, _ = run().splitlines()
    metrics = evaluated()
    assert remark == f"no intervals around the predictions: {cure}"
    assert not [name for name in metrics if name.startswith("interval")]
    assert ("cv_rmse" in metrics) == (held_back > 0)
    assert "low" not in Path("data/predictions.csv").read_text(encoding="utf-8")


def test_warnings_speak_of_the_mean_of_several_networks() -> None:
    save(columns=NAMES)
    warning = evaluated()["warnings"]["worse_than_least_squares"]
    assert warning.startswith("the mean of 3 networks predicts worse than least squares")


FITS = "each network must have held back fewer than all of 60 rows, those of data/train.pt, got"


@pytest.mark.parametrize(
    ("folds", "got"),
    [
        ((61, 12, 7), "12 of 61"),
        ((60, 60, 7), "60 of 60"),
        ((60, -1, 7), "-1 of 60"),
        ((1 << 60, 1 << 59, 7), "576460752303423488 of 1152921504606846976"),
        ((60, 12, -7), "12 of 60"),
    ],
)
def test_rows_held_back_that_the_training_points_cannot_have_are_told(folds: tuple[int, int, int], got: str) -> None:
    model = save()
    model.get_buffer("folds").copy_(torch.tensor(folds))
    write(model)
    with pytest.raises(UserError) as told:
        run()
    assert str(told.value) == f"data/net.pkl: {FITS} {got}: run `dvc repro --force train`"
    assert not Path("data/metrics.json").exists()


@pytest.mark.parametrize("name", ["folds", "half_widths"])
def test_models_that_do_not_agree_on_the_rows_held_back_are_told(name: str) -> None:
    model = save()
    model.get_buffer(name)[-1] += 1
    write(model, "data/net_params.pkl")
    with pytest.raises(UserError) as told:
        run()
    assert str(told.value) == f"data/net.pkl and data/net_params.pkl differ in {name}: run `dvc repro --force train`"


def test_models_whose_networks_are_in_another_order_are_not_the_same() -> None:
    model = save(networks=2)
    write(model, "data/net.pkl")
    for parameter in model.parameters():
        parameter.data = parameter.data.flip(0)  # a sum of two is the same in either order
    write(model, "data/net_params.pkl")
    with pytest.raises(UserError, match=r"predict differently: run `dvc repro --force train`$"):
        run()


def test_a_single_network_that_overflows_is_told() -> None:
    model = save()
    for parameter in model.parameters():
        parameter.data[1] = 1e19
    write(model)
    with pytest.raises(UserError, match=r"^data/net.pkl: must predict finite values, got nan or inf"):
        run()


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the most memory that a process had")
def test_the_memory_of_several_networks_beyond_the_points_does_not_grow_with_them() -> None:
    beyond = []
    for test_points in (1 << 17, 1 << 20):
        save(test_points=test_points)
        lines = f"""
            import re
            from pathlib import Path
            from stages.evaluate import stage as evaluate
            from stages.network import Network
            most = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) << 10
            before = most()
            evaluate.run(evaluate.Params(kernels="portable", network=Network(style="module", hidden=6)))
            print(most() - before - {8 * test_points})
        """
        process = start(Path.cwd(), ENVIRONMENT | {"PYTHONPATH": str(PROJECT)}, "python", "-c", dedent(lines))
        beyond.append(int(process.communicate(timeout=300)[0]))
    assert beyond[1] - beyond[0] < 20 << 20  # bytes


CURVE = {"launcher": "python", "device": "cpu", "batch_size": None, "micro_batch_size": None, "loss": "MSELoss"}
STEPS = {"optimizer": "Adam", "optimizer_options": {}, "learning_rate": 0.02, "epochs": 60, "snapshot_every": 60}


@pytest.mark.slow
def test_intervals_cover_the_share_of_new_points_that_they_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many trainings on y = x² + noise, each on points of its own, in which 5 networks hold back all of them."""
    levels, shares = (0.5, 0.8, 0.9), []
    generator = torch.Generator().manual_seed(1)
    for repeat in range(20):
        x, new_x = (torch.rand(n, 1, generator=generator) * 2 - 1 for n in (60, 2000))
        y, new_y = (quadratic(values, 0.2, generator) for values in (x, new_x))
        dataset.write("data/train.pt", Dataset(x, y))
        settings = {**CURVE, **STEPS, "networks": 5, "validation_fraction": 0.2, "seed": repeat}
        train.run(train.Params(kernels="portable", network=SECTION, train=Train.model_validate(settings)))
        model = models.restore_net("data/net.pkl", Blueprint.of(Dataset(x, y), SECTION)).eval()
        assert isinstance(model, Ensemble)
        assert isinstance(model.networks, Stack)
        with torch.no_grad():
            errors = (model(new_x) - new_y).abs()
        shares.append([(errors <= model.half_width(level)).double().mean().item() for level in levels])
    for level, share in zip(levels, np.mean(shares, axis=0), strict=True):
        assert level - 0.02 < share < level + 0.08, (level, share)
