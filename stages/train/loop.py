"""Gradient descent in the five customary steps: prediction, loss, zero_grad, backward, step."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from stages.train.batches import Batch

LossFunction = Callable[[Tensor, Tensor], Tensor]  # (prediction, y), both (n, n_output), to a scalar
Compute = Callable[[nn.Module, LossFunction, Tensor, Tensor], Tensor]  # for example, `backpropagate`
Everywhere = Callable[[Compute, Batch], Tensor]  # calls the Compute for each part of the Batch; returns the sum


def backpropagate(net: nn.Module, loss_function: LossFunction, x: Tensor, y: Tensor) -> Tensor:
    """Add the gradient of the loss at x, (n, n_feature), and y, (n, n_output), to the net's; return the loss."""
    prediction = net(x)  # (n, n_output)
    loss = loss_function(prediction, y)
    loss.backward()
    return loss.detach()


def descend(optimizer: Optimizer, batches: Iterable[Batch], everywhere: Everywhere) -> Iterator[tuple[Batch, Any]]:
    """Take a step for each batch; yield the batch and its mean loss before the step, a scalar tensor on the device.

    everywhere(backpropagate, batch) calls backpropagate for each micro-batch of the batch, on every rank. Together the
    calls leave the gradient of the batch's mean loss in the network; it returns that mean loss.
    """
    for batch in batches:

        def closure(batch: Batch = batch) -> Any:  # LBFGS calls it repeatedly
            optimizer.zero_grad()
            return everywhere(backpropagate, batch)

        loss = optimizer.step(closure)
        yield batch, loss
