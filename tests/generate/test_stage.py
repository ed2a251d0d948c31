import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch

from stages import dataset
from stages.generate import curve
from stages.generate import stage as generate
from stages.generate.curve import Curve
from tests.conftest import PROJECT

SETTINGS: dict[str, Any] = {
    "source": "curve",
    "points": 100,
    "test_points": 50,
    "low": -1.0,
    "high": 1.0,
    "noise": 0.2,
    "seed": 1,
}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(**changes: Any) -> str:
    return generate.run(generate.Params(kernels="portable", generate=Curve(**SETTINGS | changes)))


def test_it_says_how_many_points_it_wrote() -> None:
    assert run() == "100 training points, 50 test points -> data/train.pt, data/test.pt"
    assert run(points=1, test_points=1) == "1 training point, 1 test point -> data/train.pt, data/test.pt"


def generated(**changes: Any) -> tuple[bytes, bytes]:
    run(**changes)
    return Path("data/train.pt").read_bytes(), Path("data/test.pt").read_bytes()


def test_training_points_are_evenly_spaced_and_the_noise_lies_above_the_parabola() -> None:
    generated(points=1001, low=-3.0, high=5.0, noise=0.5)
    x, y, *_ = dataset.read("data/train.pt")
    assert x.shape == y.shape == (1001, 1)
    torch.testing.assert_close(x[:, 0].double(), torch.linspace(-3, 5, 1001, dtype=torch.float64), atol=1e-6, rtol=0)
    noise = y.double() - x.double() ** 2
    assert noise.min() >= -1e-6
    assert noise.max() <= 0.5 + 1e-6
    assert noise.max() - noise.min() > 0.45


def test_test_points_are_uniform_on_the_same_interval() -> None:
    generated(test_points=100_000, low=-3.0, high=5.0)
    x, y, *_ = dataset.read("data/test.pt")
    assert -3 <= x.min() < -2.99
    assert 4.99 < x.max() <= 5
    torch.testing.assert_close(x.histc(4, -3, 5), torch.full((4,), 25_000.0), atol=1000, rtol=0)
    assert (y - x**2).min() >= -1e-5


def test_the_noise_floor_is_the_mse_of_the_best_constant_above_the_parabola() -> None:
    x = torch.zeros(1_000_000, 1)
    noise = curve.quadratic(x, 0.2, torch.Generator().manual_seed(0)).double()
    assert noise.var().item() == pytest.approx(curve.noise_variance(0.2), rel=0.01)


def test_without_noise_the_points_lie_on_the_parabola() -> None:
    generated(noise=0)
    x, y, *_ = dataset.read("data/train.pt")
    assert torch.equal(y, x * x)


def test_neither_set_changes_with_the_size_of_the_other() -> None:
    train, test = generated()
    assert generated(test_points=60) == (train, generated(test_points=60)[1])
    assert generated(points=60)[1] == test


@pytest.mark.parametrize("change", [{"seed": 2}, {"noise": 0.1}, {"low": -2.0}, {"high": 2.0}])
def test_any_other_change_changes_both_sets(change: dict[str, Any]) -> None:
    assert not set(generated()) & set(generated(**change))


def test_one_point_is_enough() -> None:
    generated(points=1, test_points=1)
    assert dataset.read("data/train.pt")[0].tolist() == [[-1]]


def test_the_curve_has_no_names_of_columns_and_needs_no_reader_of_tables() -> None:
    generated()
    assert dataset.read("data/train.pt").columns is None
    code = f"""
        import sys
        from stages.generate import stage
        from stages.generate.curve import Curve
        stage.run(stage.Params(kernels="portable", generate=Curve(**{SETTINGS})))
        assert "pyarrow" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", dedent(code)], check=True, env=os.environ | {"PYTHONPATH": str(PROJECT)})


def test_the_rows_of_a_table_are_written_with_the_names_of_its_columns() -> None:
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/t.csv").write_text("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(10)))
    settings = {
        "source": "table",
        "path": "data/raw/t.csv",
        "target": "b",
        "features": None,
        "test_fraction": 0.2,
        "seed": 1,
    }
    generate.run(generate.Params.model_validate({"kernels": "portable", "generate": settings}))
    train, test = dataset.read("data/train.pt"), dataset.read("data/test.pt")
    assert train.columns == test.columns
    assert (train.names.feature_names, train.names.target_names) == (["a"], ["b"])
    assert (len(train.x), len(test.x)) == (8, 2)
    assert torch.equal(torch.cat([train.x, test.x]) ** 2, torch.cat([train.y, test.y]))
