from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from stages import residuals
from stages.residuals import OF_AMOUNTS, Residuals
from stages.runtime.errors import UserError


def score(errors: np.ndarray, metric: str) -> float:
    return float(np.sqrt(np.mean(errors**2)) if metric == "rmse" else np.mean(np.abs(errors)))


@dataclass
class Made:
    """Residuals of a mean of networks, and all that they are of."""

    residuals: Residuals
    errors: np.ndarray  # (n, n_output), of the mean
    each: np.ndarray  # (networks, n, n_output)


def made(each: np.ndarray, rows: np.ndarray | None = None, table: str = "0a") -> Made:
    """Return the residuals of networks with these errors, (networks, n, n_output)."""
    errors = each.mean(axis=0)
    n, n_output = errors.shape
    rows = np.arange(n) if rows is None else rows
    several = range(len(each)) if len(each) > 1 else range(0)
    without = {
        metric: np.array([score(np.delete(each, network, axis=0).mean(axis=0), metric) for network in several])
        for metric in OF_AMOUNTS
    }
    overall = {metric: score(errors, metric) for metric in OF_AMOUNTS}
    targets = [f"target, {index}" for index in range(n_output)]
    true = np.linspace(-1, 1, n * n_output).reshape(n, n_output)[rows].round(8)
    return Made(Residuals(n, table, targets, rows, true, errors[rows].round(8), overall, without), errors, each)


def drawn(networks: int, n: int, n_output: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(networks, n, n_output))


@pytest.mark.parametrize(("networks", "n_output", "table"), [(1, 1, ""), (1, 2, "0a"), (3, 1, ""), (2, 3, "0a")])
def test_what_is_written_is_read_back(tmp_path: Path, networks: int, n_output: int, table: str) -> None:
    ours = made(drawn(networks, 50, n_output), np.array([0, 7, 49]), table).residuals
    residuals.write(str(tmp_path / "errors.csv"), ours)
    theirs = residuals.read(str(tmp_path / "errors.csv"))
    assert (theirs.n, theirs.table, theirs.targets, theirs.overall) == (50, table, ours.targets, ours.overall)
    for name in ("rows", "true", "errors"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert all(np.array_equal(ours.without[metric], theirs.without[metric]) for metric in OF_AMOUNTS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("part,", "parts,"),  # another header
        ("all rows,", "some rows,"),
        ("row,7,", "row,8.5,"),
        ("row,7,", "row,07,"),
        ("\ntable,50", "\ntable,50\ntable,50"),
        ("without network,1,", "without network,2,"),
        ("row,0,", "row,0,,"),
        ("\nrow,49", '\nrow,49"\0'),
    ],
)
def test_a_file_that_the_project_has_not_written_is_told_in_one_line(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "errors.csv"
    residuals.write(str(path), made(drawn(3, 50, 1), np.array([0, 7, 49])).residuals)
    text = path.read_text()
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError) as told:
        residuals.read(str(path))
    assert str(told.value) == f"{path}: is not a table of this project's errors, or is damaged: run `dvc repro`"


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    each = drawn(2, 3, 1)
    each[0, 1] = np.nan
    residuals.write(str(tmp_path / "errors.csv"), made(each).residuals)
    with pytest.raises(ValueError, match="not as this project writes it"):
        residuals.parse((tmp_path / "errors.csv").read_text())


@pytest.mark.parametrize("metric", OF_AMOUNTS)
def test_the_variance_of_rows_is_that_of_leaving_out_each_row_in_turn(metric: str) -> None:
    """The delta method and the jackknife over rows agree where rows are many."""
    ours = made(drawn(1, 2000, 2))
    without = np.array([score(np.delete(ours.errors, row, axis=0), metric) for row in range(2000)])
    jackknife = 1999 / 2000 * np.sum((without - without.mean()) ** 2)
    assert ours.residuals.variance_of_rows(metric) == pytest.approx(jackknife, rel=0.01)


@pytest.mark.parametrize("metric", OF_AMOUNTS)
def test_some_of_the_rows_tell_the_variance_of_all(metric: str) -> None:
    each = drawn(1, 100_000, 1)
    all_rows, some = made(each).residuals, made(each, np.arange(0, 100_000, 100)).residuals
    assert some.variance_of_rows(metric) == pytest.approx(all_rows.variance_of_rows(metric), rel=0.2)


@pytest.mark.parametrize("metric", OF_AMOUNTS)
def test_the_variance_of_networks_is_the_jackknife_over_them(metric: str) -> None:
    ours = made(drawn(4, 20, 2))
    without = [score(np.mean(np.delete(ours.each, network, 0), axis=0), metric) for network in range(4)]
    variance = 3 / 4 * sum((value - np.mean(without)) ** 2 for value in without)
    assert ours.residuals.variance_of_networks(metric) == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize(("spread", "most"), [(0.0, 1.3), (0.1, 1.5), (0.3, 1.8)])
def test_both_variances_are_about_those_of_drawing_rows_and_networks_again(spread: float, most: float) -> None:
    """Networks differ from the truth by a part that they share and by lines of their own; the jackknife is cautious."""
    generator = np.random.default_rng(1)
    values, variances = [], []
    for _ in range(300):
        x, lines = generator.uniform(-1, 1, 300), generator.normal(0, spread, (8, 2))
        each = 0.2 * x**2 + lines[:, :1] + lines[:, 1:] * x + generator.normal(0, 0.3, 300)
        ours = made(each[:, :, None]).residuals
        values.append([ours.overall[metric] for metric in OF_AMOUNTS])
        variances.append([ours.variance_of_rows(metric) + ours.variance_of_networks(metric) for metric in OF_AMOUNTS])
    ratios = np.mean(variances, axis=0) / np.var(values, axis=0, ddof=1)
    assert ((ratios > 0.85) & (ratios < most)).all(), ratios


def test_a_metric_of_a_single_row_or_network_has_no_variance_of_that_kind() -> None:
    assert np.isnan(made(drawn(3, 1, 1)).residuals.variance_of_rows("rmse"))
    assert np.isnan(made(drawn(1, 9, 1)).residuals.variance_of_networks("rmse"))


def test_predictions_without_an_error_have_no_variance() -> None:
    ours = made(np.zeros((3, 9, 1))).residuals
    assert [ours.variance_of_rows(metric) for metric in OF_AMOUNTS] == [0, 0]
    assert [ours.variance_of_networks(metric) for metric in OF_AMOUNTS] == [0, 0]
