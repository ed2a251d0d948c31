import datetime
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from stages import network
from stages.columns import Category, Columns, Date, Number
from stages.tabular import Tabular, mean_and_deviation
from tests.conftest import PROJECT

COLUMNS = Columns(features=[Number(name=name) for name in "abc"], targets=[Number(name=name) for name in "yz"])


def values(column: str, n: int = 200_001) -> torch.Tensor:
    """Return a column of float32 values, (n, 1), of the kind that is hard to average."""
    generator = torch.Generator().manual_seed(3)
    random = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    columns = {
        "ordinary": random,
        "year": (1900 + 125 * random).round(),
        "identifier": (1.6e7 + 1e5 * random).round(),
        "offset a million times the deviation": 1e6 + random,
        "tiny": 1e-30 * random,
        "huge": 3e38 * (random - 0.5),
        "one row differs": torch.where(random == random.max(), 1.0001, 1.0),
    }
    return columns[column].float()


@pytest.mark.parametrize(
    "column",
    ["ordinary", "year", "identifier", "offset a million times the deviation", "tiny", "huge", "one row differs"],
)
def test_statistics_are_those_of_float64_however_the_column_is_spread(column: str) -> None:
    x = values(column)
    exact = x.numpy().astype(np.longdouble)
    mean, deviation = mean_and_deviation(x)
    assert deviation.item() == pytest.approx(float(exact.std()), rel=1e-9)
    assert abs(mean.item() - float(exact.mean())) <= 1e-9 * deviation.item()


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3e20, 1e-38, 123456.789])
def test_a_constant_column_is_standardized_to_zeros(value: float) -> None:
    x = torch.full((100_003, 1), value)
    mean, deviation = mean_and_deviation(x)
    assert (mean.item(), deviation.item()) == (x[0].item(), 1)


@pytest.mark.parametrize(
    "column", ["year", "identifier", "offset a million times the deviation", "tiny", "huge", "one row differs"]
)
def test_a_network_in_raw_units_predicts_what_float64_predicts(column: str) -> None:
    x, y = values(column).expand(-1, 3).contiguous(), values(column).expand(-1, 2).contiguous()
    net = Tabular(network.build(network.Network(style="module", hidden=7), 3, 2, seed=1), COLUMNS)
    net.fit(x, y)
    x64, y64 = x.double(), y.double()
    inside = network.build(network.Network(style="module", hidden=7), 3, 2, seed=1).double()
    with torch.no_grad():
        standardized = (x64 - x64.mean(dim=0)) / x64.std(dim=0, correction=0)
        expected = inside(standardized) * y64.std(dim=0, correction=0) + y64.mean(dim=0)
        error = (net(x).double() - expected).abs().max()
    rounded = torch.finfo(torch.float32).eps * (expected.abs().max() + 30 * y64.std(dim=0, correction=0).max())
    assert error <= rounded


def test_standardized_training_rows_have_mean_0_and_deviation_1_and_what_they_were_comes_back() -> None:
    x = torch.cat([values("year"), values("ordinary"), torch.full((200_001, 1), 5.0)], dim=1)
    y = torch.cat([values("identifier"), values("tiny")], dim=1)
    raw_y = y.clone()
    net = Tabular(network.build(network.Network(style="module", hidden=7), 3, 2, seed=1), COLUMNS)
    net.fit(x, y)
    net.standardize_(x, y)
    for standardized in (x[:, :2], y):
        torch.testing.assert_close(standardized.double().mean(dim=0), torch.zeros(2).double(), atol=1e-7, rtol=0)
        torch.testing.assert_close(standardized.double().std(dim=0), torch.ones(2).double(), atol=1e-5, rtol=0)
    assert not x[:, 2].any()
    assert ((net.in_original_units(y) - raw_y).abs().amax(dim=0) <= 1e-6 * raw_y.abs().amax(dim=0)).all()


def test_without_standardizing_the_network_inside_decides_to_the_last_bit() -> None:
    inside, x = network.build(network.Network(style="module", hidden=7), 3, 2, seed=1), torch.rand(50, 3)
    assert torch.equal(Tabular(inside, COLUMNS)(x), inside(x))


SOLD = Date.fit("sold", np.array([18000.0, 19000.0]), "year-month-day")
AREA = Number.fit("area", np.array([50, 70, 110, np.nan], np.float32))
REGION = Category(name="region", levels=["n", "s"], gaps=2)
MIXED = Columns(features=[REGION, AREA, SOLD], targets=[Number(name="price"), Number(name="rent")], missing=["-999"])


def fitted(columns: Columns = MIXED) -> Tabular:
    """Return a network that predicts different values for different rows."""
    n_feature, n_output = len(columns.x_names()), len(columns.targets)
    net = Tabular(network.build(network.Network(style="module", hidden=7), n_feature, n_output, seed=1), columns)
    random = torch.Generator().manual_seed(2)
    x, y = (torch.rand(50, width, generator=random) for width in (n_feature, n_output))
    net.fit(100 * x, 1000 * y)
    return net


def test_a_number_far_outside_its_training_range_is_taken_as_the_nearest_that_is_not() -> None:
    net, place = fitted(), MIXED.slices()["area"].start
    x = torch.rand(3, len(MIXED.x_names()))
    for value, limit in ((1e30, 170.0), (171.0, 170.0), (-11.0, -10.0), (-1e30, -10.0), (-10.0, -10.0), (60.5, 60.5)):
        far, near = x.clone(), x.clone()
        far[:, place], near[:, place] = value, limit
        assert torch.equal(net(far), net(near))


def test_dates_and_numbers_whose_training_range_is_unknown_go_on() -> None:
    net, place = fitted(), MIXED.slices()["sold"].start
    x = torch.zeros(3, len(MIXED.x_names()))
    x[:, place] = torch.tensor([0, 1e4, 1e6])
    assert len(net(x).unique(dim=0)) == 3
    unlimited = fitted(COLUMNS)
    assert (unlimited(torch.full((1, 3), 1e8)) != unlimited(torch.full((1, 3), 1e7))).all()


def test_limits_are_finite_float32_however_wide_the_training_range() -> None:
    columns = Columns(features=[Number(name="a", low=-3e38, high=3e38)], targets=[Number(name="y")])
    for limits in (fitted(columns).x_low, fitted(columns).x_high):
        assert limits.dtype == torch.float32
        assert limits.isfinite().all()


ROWS: dict[str, list[Any]] = {
    "sold": [datetime.date(2020, 1, 1), datetime.date(2035, 5, 5), None, datetime.date(2019, 12, 31)],
    "region": ["n", None, " s ", "elsewhere"],
    "note": ["what is no feature", "is ignored", None, None],
    "area": [60.5, None, -999.0, 1e5],
}


def as_pandas(table: pa.Table) -> Any:
    pytest.importorskip("pandas")
    return table.to_pandas()


@pytest.mark.parametrize(
    "convert", [lambda table: table, pa.Table.to_pylist, as_pandas], ids=["Arrow", "dicts", "pandas"]
)
def test_raw_cells_are_predicted_as_the_x_that_they_become(convert: Any) -> None:
    net = fitted()
    x = [  # region=n, region=s, missing, area, missing, sold, sine and cosine of the year, of the week
        [1, 0, 0, 60.5, 0, *SOLD.encode(np.array([18262.0]))[0]],
        [0, 0, 1, 70, 1, *SOLD.encode(np.array([23865.0]))[0]],
        [0, 1, 0, 70, 1, *SOLD.encode(np.array([np.nan]))[0]],
        [0, 0, 0, 170, 0, *SOLD.encode(np.array([18261.0]))[0]],
    ]
    expected = network.predict(net, torch.tensor(np.array(x), dtype=torch.float32))
    predicted = net.predict(convert(pa.table(ROWS)))
    assert predicted.schema == pa.schema([("price", pa.float32()), ("rent", pa.float32())])
    for column, values in zip(predicted.columns, expected.T, strict=True):
        assert column.to_numpy() == pytest.approx(values.numpy(), rel=1e-5)


def test_a_row_that_cannot_be_predicted_is_null() -> None:
    rows = [{"area": area, "region": "n", "sold": None} for area in (60, float("inf"), 10**400, -1e300, "1e999")]
    nulls = [row["rent"] is None for row in fitted().predict(rows).to_pylist()]
    assert nulls == [False, True, True, True, True]


def test_one_row_of_texts_is_read_as_in_a_table() -> None:
    net = fitted()
    text = [{"area": "1e2", "region": "n", "sold": "2020-01-01"}]
    typed = [{"area": 100, "region": "n", "sold": datetime.datetime(2020, 1, 1)}]
    assert net.predict(text).equals(net.predict(typed))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"area": 3, "region": "n"}, {"area": 4, "sold": None}], "rows must have region, sold, None where a value is"),
        (pa.table({"area": [3], "sold": [None]}), "rows must have region, None where a value is missing"),
        ({"area": 3, "region": "n", "sold": None}, "rows must be an Arrow or pandas table, or a list of dicts"),
        ([3, 4], "rows must be an Arrow or pandas table, or a list of dicts"),
    ],
)
def test_rows_that_lack_a_feature_or_are_none_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        fitted().predict(rows)


def test_a_model_is_built_without_memory_and_without_torchs_compiler() -> None:
    """As before a file is loaded; the compiler, by which torch computes some of what takes no memory, loads slowly."""
    code = """
import sys, torch
from tests.test_tabular import COLUMNS, Tabular
with torch.device("meta"):
    Tabular(torch.nn.Linear(3, 2), COLUMNS)
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
