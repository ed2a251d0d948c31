"""The dataset contract: a file holds {"x": x, "y": y}, float32, (n, n_feature) and (n, n_output), n ≥ 1, all finite."""

import zipfile

import torch
from torch import Tensor

from stages import files
from stages.errors import UserError

CHUNK = 1 << 20  # rows looked at together


def write(path: str, x: Tensor, y: Tensor) -> None:
    """Write a dataset. Raises UserError as `read` does, before anything is written."""
    _check(path, {"x": x, "y": y})
    with files.whole(path) as file:
        torch.save({"x": x, "y": y}, file)


def read(path: str) -> tuple[Tensor, Tensor]:
    """Return x, float32 (n, n_feature), and y, float32 (n, n_output), mapped from the file rather than copied.

    Raises UserError where the file is missing or breaks the contract.
    """
    with files.reading(path, "a dataset of this project"):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():  # torch does not compare the checksums
                raise ValueError
        data = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    _check(path, data)
    return data["x"], data["y"]


def evenly(n: int, most: int) -> Tensor:
    """Return at most `most` row numbers, int64, evenly spread over n rows, the first and the last among them."""
    k = min(n, most)
    return torch.arange(k) * (n - 1) // max(k - 1, 1)


def _check(path: str, data: object) -> None:
    if not (isinstance(data, dict) and data.keys() == {"x", "y"}):
        raise UserError(f"{path}: must hold a dict of x and y")
    for name, values in data.items():
        if not (isinstance(values, Tensor) and values.dtype == torch.float32 and values.ndim == 2):
            raise UserError(f"{path}: {name} must be a float32 tensor of two dimensions, got {_kind(values)}")
        if values.numel() == 0:
            raise UserError(f"{path}: {name} must have at least one row and one column, got {_kind(values)}")
        if not (values.device.type == "cpu" and values.is_contiguous()):
            raise UserError(f"{path}: {name} must be contiguous, on the CPU")
        if not all(chunk.isfinite().all() for chunk in values.split(CHUNK)):
            raise UserError(f"{path}: {name} must be finite, got nan or inf")
    if len(data["x"]) != len(data["y"]):
        raise UserError(f"{path}: x and y must have as many rows, got {len(data['x'])} and {len(data['y'])}")


def _kind(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
