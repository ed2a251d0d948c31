"""The loss of one network, as torch.nn has it, or of each of several."""

from typing import Literal

from torch import Tensor, nn

from stages.runtime.errors import UserError

OF_AMOUNTS = ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
OF_CLASSES = ("CrossEntropyLoss",)
LossName = Literal["auto", "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss", "CrossEntropyLoss"]


def fitting_loss(name: LossName, *, classes: bool) -> str:
    """Return the name of the loss, `auto` resolved. Raises UserError if it is not for such a target."""
    names = OF_CLASSES if classes else OF_AMOUNTS
    if name == "auto":
        return names[0]
    if name not in names:
        target = "a category" if classes else "amounts"
        raise UserError(f"params.yaml: train.loss: must be auto or {' or '.join(names)} for {target}, got {name}")
    return name


def new_loss(name: str, *, several: bool) -> nn.Module:
    """Return the loss of torch.nn with that name, a mean over the rows; of several networks, of those of each."""
    return OfEach(name) if several else getattr(nn, name)()


def loss_of_rows(loss_function: nn.Module) -> "OfRows":
    """Return the loss of each row, whose mean is the loss that `new_loss` returned."""
    return loss_function.of_rows if isinstance(loss_function, OfEach) else OfRows(type(loss_function).__name__)


class OfRows(nn.Module):
    """The loss of each row, whose mean is the loss of torch.nn with that name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.of_values = getattr(nn, name)(reduction="none")

    def forward(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Return the losses, (…, n, 1), of predictions, (…, n, n_output); y: the same, or (n, n_output)."""
        if isinstance(self.of_values, nn.CrossEntropyLoss):  # which takes dimension 1 for the classes
            return -(y * prediction.log_softmax(dim=-1)).sum(dim=-1, keepdim=True)
        return self.of_values(prediction, y.expand_as(prediction)).mean(dim=-1, keepdim=True)


class OfEach(nn.Module):
    """The loss of each network."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.of_rows = OfRows(name)

    def forward(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Return the losses, (networks,), of predictions, (networks, n, n_output); y: the same, or (n, n_output)."""
        return self.of_rows(prediction, y).mean(dim=(1, 2))
