"""Measure how well several networks predict the rows that each of them has held back."""

import numpy as np
import torch
from torch import Tensor, nn

from stages import network
from stages.dataset import Dataset
from stages.ensemble import held_out, quantiles, width
from stages.folds import Folds
from stages.history import INTERVAL
from stages.runtime.chunks import rows_at_a_time
from stages.tabular import Tabular, ensemble_of


def measure_held_out(model: nn.Module, points: Dataset, folds: Folds) -> np.ndarray | None:
    """Store in a model of several networks which rows each held back, and the quantiles of the errors there.

    Return the half-widths of intervals at the level INTERVAL, float32 (n_output,), in the units of the table; None if
    nothing was held back, too few rows were, or the model has one network. The points, on the CPU, are in the units of
    the networks.
    """
    if (ensemble := ensemble_of(model)) is None:
        return None
    ensemble.folds = torch.tensor([folds.rows, folds.size, folds.seed])
    if not folds.size or points.names.classes:
        return None

    def each(x: Tensor) -> Tensor:
        return network.predict(ensemble.networks, x)

    rows, y = held_out(each, points.x, ensemble.held_back(), rows_at_a_time(width(model)))
    true = points.y[rows]
    if isinstance(model, Tabular):
        y, true = model.in_original_units(y), model.in_original_units(true)
    ensemble.half_widths = quantiles((y - true).abs())
    try:
        return ensemble.half_width(INTERVAL).numpy()
    except ValueError:
        return None
