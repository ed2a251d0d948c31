"""Say in a few words how well a training went."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stages.dataset import Dataset
from stages.ensemble import networks_of
from stages.runtime.chunks import rows_at_a_time
from stages.runtime.errors import counted
from stages.tabular import Tabular, mean_and_deviation
from stages.train.batches import Points
from stages.train.loss import OF_CLASSES

LEARNED = 0.9999  # times the loss of predicting the mean: above that a network has learned nothing but the mean
ROSE = 1.1  # times the loss before the first step: above that the steps were too long


def summary(
    curves: Mapping[str, Sequence[float]],
    lowest: Sequence[float],
    final: float,
    loss_name: str,
    points: Dataset,
    held_back: Points | None,
    model: nn.Module,
    *,
    standardize: bool,
) -> str:
    """Return the loss of the weights that are saved, and what to compare it with.

    That is the noise floor, if it is known, and the loss of predicting the mean, if the network does no better.

    curves: the columns of loss.csv; lowest: each network's lowest validation loss, if points were held back; final: the
    loss after the last step; loss_name: that of the loss in torch.nn; points, held_back: in the units that the network
    was trained in.
    """
    loss, epochs = final, counted(len(curves["loss"]), "epoch")
    stack = networks_of(model)
    if not lowest:
        text = f"loss {loss:.4g} after {epochs}"
    elif stack:
        loss = sum(lowest) / len(lowest)
        text = f"lowest validation loss {loss:.4g} in {epochs}"
    else:
        losses = curves["validation_loss"]
        loss = min(losses)
        text = f"lowest validation loss {loss:.4g} at epoch {losses.index(loss)} of {len(losses)}"
    if stack:
        text += f", mean of {stack.networks} networks"
    ratio = over_noise_floor(loss, points, model) if loss_name == "MSELoss" else None
    if ratio is not None:
        text += f", {ratio:.4g} times the noise floor"
    of_mean = loss_of_mean(loss_name, points.y, (held_back or points).y.cpu())
    if loss > LEARNED * of_mean > 0:
        mean = "shares of the classes" if points.names.classes else "mean"
        text += f"; no better than predicting the {mean}, whose loss is {of_mean:.4g}: "
        if max(final, max(curves["loss"])) > ROSE * curves["loss"][0]:
            text += "lower train.learning_rate"
        elif final > LEARNED * loss_of_mean(loss_name, points.y, points.y):
            text += "raise train.epochs or train.learning_rate"
        else:
            text += "lower network.hidden or train on more points, since the network only fits these"
        if isinstance(model, Tabular) and not standardize:
            text += ", or set network.standardize to true"
    return text


def over_noise_floor(loss: float, points: Dataset, model: nn.Module) -> float | None:
    """Return a mean squared error over the variance of the noise, in the same units; None if it is unknown."""
    unit = (
        model.y_deviation.pow(-2).mean().item() if isinstance(model, Tabular) else 1.0
    )  # a squared error of 1 in table units, as the network sees it
    return points.over_noise_floor(loss / unit)


def loss_of_mean(loss_name: str, training_y: Tensor, y: Tensor) -> float:
    """Return the loss at y, (n, n_output), of predicting the mean of each column of training_y, in float64.

    Of classes it is that of predicting their shares in training_y as the probabilities.
    """
    mean, _ = mean_and_deviation(training_y)
    if loss_name in OF_CLASSES:
        mean = mean.clamp(min=torch.finfo(torch.float32).tiny).log()
    loss_function = getattr(nn, loss_name)()
    chunks = (chunk.double() for chunk in y.split(rows_at_a_time(y.shape[1])))
    return sum(loss_function(mean.expand_as(chunk), chunk).item() * len(chunk) for chunk in chunks) / len(y)
