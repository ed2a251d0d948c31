"""Losses of one network and of several, against float64 by hand."""

import pytest
import torch
from torch import Tensor, nn

from stages.runtime.errors import UserError
from stages.train.loss import OF_AMOUNTS, OF_CLASSES, OfRows, fitting_loss, loss_of_rows, new_loss


def one_hot(classes: list[int], n: int) -> Tensor:
    """Return y, float32 (rows, n); -1 is a class that training has not seen."""
    return torch.tensor([[float(own == column) for column in range(n)] for own in classes])


def cross_entropy(prediction: Tensor, y: Tensor) -> Tensor:
    """Return the loss of each row, float64, by the definition."""
    exponentials = prediction.double().exp()
    probabilities = exponentials / exponentials.sum(dim=-1, keepdim=True)
    return -(y.double() * probabilities.log()).sum(dim=-1)


Y = one_hot([2, 0, 1, 2, -1], 3)


def predictions(*shape: int) -> Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_cross_entropy_of_one_network_is_the_mean_over_rows() -> None:
    prediction = predictions(5, 3).requires_grad_()
    loss = new_loss("CrossEntropyLoss", several=False)(prediction, Y)
    torch.testing.assert_close(loss, cross_entropy(prediction, Y).mean().float())
    loss.backward()
    expected = (prediction.detach().double().softmax(dim=1) * Y.sum(dim=1, keepdim=True) - Y) / 5
    torch.testing.assert_close(prediction.grad, expected.float())


@pytest.mark.parametrize("own_rows", [True, False])
def test_cross_entropy_of_several_networks_is_that_of_each(own_rows: bool) -> None:
    prediction = predictions(4, 5, 3)
    y = torch.stack([Y.roll(index, dims=0) for index in range(4)]) if own_rows else Y
    losses = new_loss("CrossEntropyLoss", several=True)(prediction, y)
    expected = cross_entropy(prediction, y).mean(dim=1)
    assert losses.shape == (4,)
    torch.testing.assert_close(losses, expected.float())


@pytest.mark.parametrize("name", [*OF_AMOUNTS, *OF_CLASSES])
@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 3)])
def test_the_losses_of_rows_have_the_loss_as_their_mean(name: str, shape: tuple[int, ...]) -> None:
    loss = new_loss(name, several=len(shape) == 3)
    prediction = predictions(*shape)
    of_rows = loss_of_rows(loss)
    assert isinstance(of_rows, OfRows)
    losses = of_rows(prediction, Y)
    assert losses.shape == (*shape[:-1], 1)
    torch.testing.assert_close(losses.mean(dim=(-2, -1)), loss(prediction, Y))
    for index in range(shape[0] if len(shape) == 3 else 0):
        torch.testing.assert_close(losses[index, :, 0].mean(), getattr(nn, name)()(prediction[index], Y))


def test_the_loss_fits_the_target() -> None:
    assert [fitting_loss("auto", classes=classes) for classes in (False, True)] == ["MSELoss", "CrossEntropyLoss"]
    assert fitting_loss("HuberLoss", classes=False) == "HuberLoss"
    for name in OF_AMOUNTS:
        with pytest.raises(UserError) as caught:
            fitting_loss(name, classes=True)  # type: ignore[arg-type]
        rule = "must be auto or CrossEntropyLoss for a category"
        assert str(caught.value) == f"params.yaml: train.loss: {rule}, got {name}"
    with pytest.raises(UserError) as caught:
        fitting_loss("CrossEntropyLoss", classes=False)
    rule = "must be auto or MSELoss or L1Loss or SmoothL1Loss or HuberLoss for amounts"
    assert str(caught.value) == f"params.yaml: train.loss: {rule}, got CrossEntropyLoss"
