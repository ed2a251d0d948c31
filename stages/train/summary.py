"""Say in a few words how well a training went."""

from collections.abc import Mapping, Sequence

from torch import nn

from stages.dataset import Dataset
from stages.runtime.errors import counted
from stages.tabular import Tabular


def summary(curves: Mapping[str, Sequence[float]], final: float, name: str, points: Dataset, model: nn.Module) -> str:
    """Return the loss of the weights that are saved, and how many times the noise floor it is, if that is known.

    curves: the columns of loss.csv; final: the loss after the last step; name: that of the loss in torch.nn.
    """
    epochs = len(curves["loss"])
    loss, told = final, f"loss {final:.4g} after {counted(epochs, 'epoch')}"
    if validation := curves.get("validation_loss"):
        loss = min(validation)
        told = f"lowest validation loss {loss:.4g} at epoch {validation.index(loss)} of {epochs}"
    ratio = over_noise_floor(loss, points, model) if name == "MSELoss" else None
    return told if ratio is None else f"{told}, {ratio:.4g} times the noise floor"


def over_noise_floor(loss: float, points: Dataset, model: nn.Module) -> float | None:
    """Return a mean squared error over the variance of the noise, in the same units; None if it is unknown."""
    unit = model.y_deviation.pow(-2).mean().item() if isinstance(model, Tabular) else 1.0  # of y as it is standardized
    return points.over_noise_floor(loss / unit)
