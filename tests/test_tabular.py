import numpy as np
import pytest
import torch

from stages import network
from stages.columns import Columns
from stages.tabular import Tabular, mean_and_deviation

COLUMNS = Columns(features=["a", "b", "c"], targets=["y", "z"])


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
    assert ((net.unstandardize(y) - raw_y).abs().amax(dim=0) <= 1e-6 * raw_y.abs().amax(dim=0)).all()


def test_without_standardizing_the_network_inside_decides_to_the_last_bit() -> None:
    inside, x = network.build(network.Network(style="module", hidden=7), 3, 2, seed=1), torch.rand(50, 3)
    assert torch.equal(Tabular(inside, COLUMNS)(x), inside(x))
