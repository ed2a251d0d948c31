"""Points to train or test on, and the file that carries them from stage to stage.

The file is a dict saved by torch.save: x, float32 (n, n_feature); y, float32 (n, n_output), of classes 1 in the column
of a row's class and 0 elsewhere; n ≥ 1; all finite; noise_variance, a float, if the variance of the noise in y is
known; columns, the JSON text of a Columns, if the columns have names; decisions, the JSON text of a mapping, if
something was decided about the columns of a table; and digest, in hexadecimal digits, if these are the rows of a table
to test on.
"""

import json
import math
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.columns import Columns, unnamed
from stages.runtime import archive, files
from stages.runtime.errors import UserError, short

OPTIONAL = ("noise_variance", "columns", "decisions", "digest")


class Dataset(NamedTuple):
    """Points, on the CPU."""

    x: Tensor  # float32 (n, n_feature)
    y: Tensor  # float32 (n, n_output)
    noise_variance: float | None = None  # in units of y²; no model's mean squared error is lower on average
    columns: Columns | None = None
    decisions: dict[str, str] | None = None  # what was decided about a table's columns, by name, for the metrics
    digest: str | None = None  # of a table and of which of its rows these are: the same for any choice of features

    @property
    def names(self) -> Columns:
        """The names of the columns: those given, else those of `unnamed`."""
        return self.columns or unnamed(self.x.shape[1], self.y.shape[1])

    @property
    def classes(self) -> Tensor | None:
        """The class of each row, int64 (n,), if the target is a category; any number for a row of none."""
        return self.y.argmax(dim=1) if self.names.classes else None

    def over_noise_floor(self, mse: float) -> float | None:
        """Return a mean squared error over the noise's variance; None if that is unknown, 0 or next to 0."""
        ratio = mse / self.noise_variance if self.noise_variance else math.inf
        return ratio if math.isfinite(ratio) else None


def write(path: str, dataset: Dataset) -> None:
    """Write a dataset. Raises UserError as `read` does, before anything is written."""
    content = {name: value for name, value in dataset._asdict().items() if value is not None}
    if dataset.columns:
        content["columns"] = dataset.columns.model_dump_json()
    if dataset.decisions:
        content["decisions"] = json.dumps(dataset.decisions)
    _checked(path, content)
    with files.writing(path) as file:
        torch.save(content, file)


def read(path: str) -> Dataset:
    """Return the dataset in a file, which may have been written by plain torch.save.

    Raises UserError if the file is missing, is not as torch.save writes it, or breaks the contract above.
    """
    with files.reading(path, "a dataset of this project"), Path(path).open("rb") as file:
        archive.torch_pickle(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of tensors that _checked refuses
            content = torch.load(file, map_location="cpu", weights_only=True)
    return _checked(path, content)


def _checked(path: str, content: Any) -> Dataset:
    """Return what a file holds. Raises UserError if it breaks the contract above."""
    if not (isinstance(content, dict) and content.keys() - set(OPTIONAL) == {"x", "y"}):
        raise UserError(f"{path}: must hold a dict of x, y and, optionally, {', '.join(OPTIONAL)}")
    for name in ("x", "y"):
        values = content[name]
        if isinstance(values, Tensor) and not _plain(values):
            raise UserError(
                f"{path}: {name} must be a plain tensor: dense, contiguous, on the CPU, without requires_grad"
            )
        if not (isinstance(values, Tensor) and values.dtype == torch.float32 and values.ndim == 2):
            raise UserError(f"{path}: {name} must be a float32 tensor of two dimensions, got {_kind(values)}")
        if values.numel() == 0:
            raise UserError(f"{path}: {name} must have at least one row and one column, got {_kind(values)}")
        if not all(bound.isfinite() for bound in values.aminmax()):  # both bounds are nan if any value is
            raise UserError(f"{path}: {name} must be finite, got nan or inf")
    rows = len(content["x"]), len(content["y"])
    if rows[0] != rows[1]:
        raise UserError(f"{path}: x and y must have the same number of rows, got {rows[0]} and {rows[1]}")
    variance = content.get("noise_variance", 0.0)
    if not (isinstance(variance, float) and 0 <= variance < float("inf")):
        raise UserError(f"{path}: noise_variance must be a finite float of at least 0, got {variance!r}")
    digest = content.get("digest", "0")
    if not (isinstance(digest, str) and re.fullmatch("[0-9a-f]+", digest)):
        raise UserError(f"{path}: digest must be a text of hexadecimal digits, got {short(digest)}")
    dataset = Dataset(**content | {"columns": None, "decisions": _decisions(path, content.get("decisions", "{}"))})
    if "columns" in content:
        dataset = dataset._replace(columns=_named(path, content["columns"]))
    names = dataset.names
    wanted, named = (dataset.x.shape[1], dataset.y.shape[1]), (len(names.x_names()), len(names.y_names()))
    if named != wanted:
        counts = f"{wanted[0]} of x and {wanted[1]} of y, got {named[0]} and {named[1]}"
        raise UserError(f"{path}: columns must name {counts}")
    if names.classes and not (((dataset.y == 0) | (dataset.y == 1)).all() and (dataset.y.sum(dim=1) <= 1).all()):
        raise UserError(f"{path}: y must be 1 in the column of each row's class, and 0 elsewhere")
    return dataset


def _named(path: str, text: Any) -> Columns:
    try:
        return Columns.model_validate_json(text)
    except ValueError as error:
        raise UserError(f"{path}: columns must be JSON text as stages/columns/encoder.py describes it") from error


def _decisions(path: str, text: Any) -> dict[str, str] | None:
    try:
        decisions = json.loads(text)
    except (TypeError, ValueError):
        decisions = text
    if not (isinstance(decisions, dict) and all(isinstance(words, str) for words in decisions.values())):
        raise UserError(f"{path}: decisions must be JSON text, a mapping of names to texts")
    return decisions or None


def _plain(values: Tensor) -> bool:
    return (
        type(values) is Tensor
        and (values.device.type, values.layout) == ("cpu", torch.strided)
        and not (values.is_nested or values.requires_grad or values.is_neg())
        and values.is_contiguous()
    )


def _kind(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
