"""The loss of one network, as torch.nn has it, or of each of several."""

from torch import Tensor, nn


def new_loss(name: str, *, several: bool) -> nn.Module:
    """Return the loss of torch.nn with that name, a mean over all values; of several networks, over those of each."""
    return OfEach(getattr(nn, name)(reduction="none")) if several else getattr(nn, name)()


class OfEach(nn.Module):
    """The loss of each network."""

    def __init__(self, of_values: nn.Module) -> None:
        super().__init__()
        self.of_values = of_values

    def forward(self, prediction: Tensor, y: Tensor) -> Tensor:
        """Return the losses, (networks,), of predictions, (networks, n, n_output); y: the same, or (n, n_output)."""
        return self.of_values(prediction, y.expand_as(prediction)).mean(dim=(1, 2))
