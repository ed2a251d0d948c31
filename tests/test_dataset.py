from pathlib import Path

import pytest
import torch
from torch import Tensor

from stages import dataset
from stages.dataset import Dataset
from stages.errors import UserError

X, Y = torch.rand(5, 2), torch.rand(5, 1)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "points.pt")


@pytest.mark.parametrize("variance", [None, 0.0, 0.25])
def test_what_is_written_is_read_back(path: str, variance: float | None) -> None:
    dataset.write(path, Dataset(X, Y, variance))
    x, y, noise_variance = dataset.read(path)
    assert torch.equal(x, X)
    assert torch.equal(y, Y)
    assert noise_variance == variance


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([X, Y], "must hold a dict of x, y and, optionally, noise_variance"),
        ({"x": X}, "must hold a dict of x, y and, optionally, noise_variance"),
        ({"x": X, "y": Y, "z": Y}, "must hold a dict of x, y and, optionally, noise_variance"),
        ({"x": X, "y": 3}, "y must be a float32 tensor of two dimensions, got int"),
        ({"x": X.double(), "y": Y}, r"x must be a float32 tensor of two dimensions, got torch.float64 \(5, 2\)"),
        ({"x": X, "y": Y[:, 0]}, r"y must be a float32 tensor of two dimensions, got torch.float32 \(5,\)"),
        ({"x": X[:0], "y": Y[:0]}, r"x must have at least one row and one column, got torch.float32 \(0, 2\)"),
        ({"x": X[:, :0], "y": Y}, r"x must have at least one row and one column, got torch.float32 \(5, 0\)"),
        ({"x": X.T.contiguous().T, "y": Y}, "x must be contiguous, on the CPU"),
        ({"x": X.to_sparse(), "y": Y}, "x must be contiguous, on the CPU"),
        ({"x": X, "y": Y.where(Y != Y[3], torch.nan)}, "y must be finite, got nan or inf"),
        ({"x": X.where(X != X[0, 1], torch.inf), "y": Y}, "x must be finite, got nan or inf"),
        ({"x": X, "y": Y, "noise_variance": -1.0}, "noise_variance must be a finite float of at least 0, got -1.0"),
        ({"x": X, "y": Y, "noise_variance": 1}, "noise_variance must be a finite float of at least 0, got 1"),
        ({"x": X, "y": Y[:4]}, "x and y must have the same number of rows, got 5 and 4"),
    ],
)
def test_a_file_against_the_contract_is_refused(path: str, data: object, message: str) -> None:
    torch.save(data, path)
    with pytest.raises(UserError, match=f"^{path}: {message}$"):
        dataset.read(path)


def test_points_against_the_contract_are_not_written(path: str) -> None:
    with pytest.raises(UserError, match="y must be finite"):
        dataset.write(path, Dataset(X, Y / 0))
    assert not Path(path).exists()


def test_a_missing_or_damaged_file_says_what_to_do(path: str) -> None:
    with pytest.raises(UserError, match="is missing: run `dvc repro`$"):
        dataset.read(path)
    dataset.write(path, Dataset(X, Y))
    Path(path).write_bytes(Path(path).read_bytes()[:-100])
    with pytest.raises(UserError, match="is damaged: run `dvc repro`$"):
        dataset.read(path)


@pytest.mark.parametrize(
    ("n", "most", "expected"), [(1, 1000, [0]), (5, 1000, [0, 1, 2, 3, 4]), (5, 3, [0, 2, 4]), (9, 1, [0])]
)
def test_evenly_spread_rows(n: int, most: int, expected: list[int]) -> None:
    assert dataset.evenly_spread(n, most).tolist() == expected


def test_evenly_spread_rows_of_many_reach_both_ends() -> None:
    rows: Tensor = dataset.evenly_spread(10**8, 1000)
    assert (rows[0], rows[-1], len(rows.unique())) == (0, 10**8 - 1, 1000)
