"""How far the metrics can be trusted: standard errors, scores of single networks, rows held back, intervals."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stages.dataset import Dataset
from stages.ensemble import Ensemble, held_out
from stages.evaluate.class_metrics import losses_of
from stages.evaluate.measured import errors_at
from stages.evaluate.metrics import Metrics
from stages.evaluate.predictions import Advance
from stages.history import INTERVAL
from stages.residuals import OF_AMOUNTS, OF_CLASSES, Residuals
from stages.runtime.errors import UserError, counted
from stages.tabular import predict_each

RETRAIN = "run `dvc repro --force train`"


def require_held_back(ensemble: Ensemble, twin: Ensemble | None, rows: int) -> None:
    """Raise UserError if what an ensemble says of rows held back cannot be true of so many, or its twin says other."""
    held_back_of, size, seed = ensemble.folds.tolist()
    if held_back_of != rows or not 0 <= size < rows or not 0 <= seed < 2**32:
        rule = f"each network must have held back fewer than all of {rows} rows, those of data/train.pt"
        raise UserError(f"data/net.pkl: {rule}, got {size} of {held_back_of}: {RETRAIN}")
    for name, values in ensemble.named_buffers(recurse=False):
        if twin is None or not torch.equal(values, twin.get_buffer(name)):
            raise UserError(f"data/net.pkl and data/net_params.pkl differ in {name}: {RETRAIN}")


def with_standard_errors(prefix: str, metrics: Mapping[str, Any], residuals: Residuals) -> Metrics:
    """Return metrics under a prefix, each followed by its standard error, where there is one.

    Of several networks it is the root of the variance by rows (delta method) plus that by networks (jackknife: Efron
    and Stein 1981, The Jackknife Estimate of Variance); otherwise of the variance by rows alone, as its name says, and
    that of an accuracy always: leaving out one network turns few predictions, which tells the jackknife too little. An
    accuracy of 0 or 1 has none.
    """
    named: Metrics = {}
    for name, value in metrics.items():
        named[f"{prefix}_{name}"] = value
        if name == "accuracy" and 0 < value < 1:
            named[f"{prefix}_accuracy_se_of_rows"] = math.sqrt(value * (1 - value) / (residuals.n - 1))
        if name in residuals.overall:
            several = len(residuals.without[name]) > 0
            variance = residuals.variance_of_rows(name) + (residuals.variance_of_networks(name) if several else 0.0)
            if not math.isnan(variance):
                named[f"{prefix}_{name}_{'se' if several else 'se_of_rows'}"] = math.sqrt(variance)
    return named


def of_one(networks: Sequence[Mapping[str, Any]]) -> Metrics:
    """Return the mean and the sample standard deviation of each metric of several networks, each scored by itself.

    That is what one network would have scored, and by how much another seed would have changed it.
    """
    named: Metrics = {}
    for name in networks[0] if networks else ():
        values = [value for metrics in networks if (value := metrics[name]) is not None]
        if len(values) == len(networks):
            named |= {f"test_{name}_of_one": fmean(values), f"test_{name}_of_one_std": stdev(values)}
    return named


def of_held_back(model: nn.Module, ensemble: Ensemble, train: Dataset, rows: int, advance: Advance) -> Metrics:
    """Return the metrics of the training rows that networks held back, each predicted by those that did.

    It is a cross-validation, though each network chose its epoch by these rows. The model is in evaluation mode; each
    network predicts so many rows at a time.
    """

    def each(x: Tensor) -> Tensor:
        predictions = predict_each(model, x)
        advance(x.shape[0] * x.shape[1])
        return predictions

    known, predictions = held_out(each, train.x, ensemble.held_back(train.classes), rows)
    overall = errors_at(train._replace(y=train.y[known]), predictions.split(rows)).overall()
    return with_standard_errors("cv", overall, residuals_of(train, known, predictions, overall, n=len(known)))


def residuals_of(
    points: Dataset,
    rows: Tensor,
    predictions: Tensor,
    overall: Mapping[str, Any],
    without: Sequence[Mapping[str, Any]] = (),
    *,
    n: int,
) -> Residuals:
    """Return the errors of predictions, (k, n_output), for k of the points, int64 (k,).

    overall: the metrics of all n points; without: those of the mean prediction without each of several networks.
    """
    y, names = points.y[rows], points.names
    true, errors = y.double().numpy(), (predictions.double() - y.double()).numpy()
    losses: dict[str, np.ndarray] = {}
    if names.classes:
        of_rows = losses_of(predictions, y)
        true, errors = np.array(names.targets[0].decode(y.numpy()))[:, None], (of_rows.of_true - 1)[:, None].numpy()
        losses = {name: getattr(of_rows, name).numpy() for name in OF_CLASSES}
    metrics = OF_CLASSES if names.classes else OF_AMOUNTS
    return Residuals(
        n,
        points.digest or "",
        names.target_names,
        rows.numpy(),
        true,
        errors,
        {name: overall[name] for name in metrics},
        {name: np.array([some[name] for some in without]) for name in metrics},
        losses,
    )


def half_width_of(ensemble: Ensemble | None, *, classes: bool) -> tuple[Tensor | None, list[str]]:
    """Return the half-width of intervals at the level INTERVAL, (n_output,), or None and, for several networks, why.

    Classes have probabilities instead.
    """
    if ensemble is None or classes:
        return None, []
    try:
        return ensemble.half_width(INTERVAL), []
    except ValueError:
        held_back = len(ensemble.half_widths)
    if held_back:
        cure = f"only {counted(held_back, 'training row')} held back: raise train.networks or train.validation_fraction"
    else:
        cure = "set train.validation_fraction, for instance to 0.1"
    return None, [f"no intervals around the predictions: {cure}"]


def of_intervals(half_width: Tensor, covered: Tensor, n: int, targets: Sequence[str]) -> dict[str, object]:
    """Return the level and the half-width of intervals, and the share of n rows that they covered.

    The last two are by target if there are several. half_width: float32 (n_output,), in the units of the table;
    covered: int64 (n_output,).
    """
    widths, shares = half_width.tolist(), [count / n for count in covered.tolist()]
    if len(targets) == 1:
        return {"interval_level": INTERVAL, "interval_half_width": widths[0], "interval_coverage": shares[0]}
    by_target: dict[str, Mapping[str, float]] = {
        "interval_half_width": dict(zip(targets, widths, strict=True)),
        "interval_coverage": dict(zip(targets, shares, strict=True)),
    }
    return {"interval_level": INTERVAL, **by_target}
