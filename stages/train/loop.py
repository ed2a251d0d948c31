"""Gradient descent in the five customary steps: prediction, loss, zero_grad, backward, step."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from stages.train.batches import Batch

LossFunction = Callable[[Tensor, Tensor], Tensor]  # prediction and y, (n, n_output), to a scalar
Compute = Callable[[nn.Module, LossFunction, Tensor, Tensor], Tensor]  # `backpropagate`, for one
Everywhere = Callable[[Compute, Batch], Tensor]  # calls the one for the parts of the other, and adds up


def backpropagate(net: nn.Module, loss_function: LossFunction, x: Tensor, y: Tensor) -> Tensor:
    """Add the gradient of the loss at x, (n, n_feature), and y, (n, n_output), to the network's; return the loss."""
    prediction = net(x)  # (n, n_output)
    loss = loss_function(prediction, y)
    loss.backward()
    return loss.detach()


def descend(optimizer: Optimizer, batches: Iterable[Batch], everywhere: Everywhere) -> Iterator[tuple[Batch, Any]]:
    """Take a step for each batch; yield the batch and its mean loss before the step, a scalar tensor on the device.

    everywhere(backpropagate, batch) calls backpropagate for the parts of a batch, wherever they are to be computed.
    Together they leave the gradient of the batch's mean loss in the network; the sum of what they return is that loss.
    """
    for batch in batches:

        def closure(batch: Batch = batch) -> Any:  # LBFGS calls it several times a step, the others once
            optimizer.zero_grad()
            return everywhere(backpropagate, batch)

        loss = optimizer.step(closure)
        yield batch, loss
