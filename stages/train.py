"""Train the network by gradient descent and record how it learns.

data/train.pt → data/net.pkl (the whole module), data/net_params.pkl (its state dict), data/loss.csv, data/history.npz.
"""

import copy
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from stages import dataset, device, history, network, optimizer, output
from stages.errors import UserError
from stages.network import Network
from stages.params import Section, StageParams
from stages.record import Record

TICK = 0.2  # seconds from one look at the losses, by the progress bar and for nan, to the next


class Train(Section):
    """The section `train` of params.yaml."""

    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]+)?|mps|auto)$")]
    epochs: Annotated[int, Field(gt=0)]
    learning_rate: Annotated[float, Field(gt=0)]
    optimizer: Literal[optimizer.NAMES]
    optimizer_options: dict[str, JsonValue]
    loss: Literal["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"]
    snapshot_every: Annotated[int, Field(gt=0)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]


class Params(StageParams):
    """What this stage reads of params.yaml."""

    network: Network
    train: Train


def fit(
    net: nn.Module, optimizer: Optimizer, loss_function: nn.Module, x: Tensor, y: Tensor, epochs: Iterable[int]
) -> Iterator[Tensor]:
    """Train the network in place on x, (n, n_feature), and y, (n, n_output), a step an epoch.

    Yield after each step the epoch's loss, a scalar on the device of x, as it was before the step.
    """
    for _ in epochs:

        def closure() -> Tensor:  # an optimizer calls it once a step; LBFGS, which searches, as often as it needs
            prediction = net(x)  # (n, n_output)
            loss = loss_function(prediction, y)
            optimizer.zero_grad()
            loss.backward()
            return loss

        yield optimizer.step(closure).detach()


@torch.no_grad()
def mean_loss(net: nn.Module, loss_function: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss over all points, a scalar on the device of x."""
    return loss_function(net(x), y)


def rehearse(net: nn.Module, loss_function: nn.Module, x: Tensor, y: Tensor, settings: Train) -> None:
    """Train a copy of the network on one point. Raises UserError where the optimizer refuses its options or the net."""
    net = copy.deepcopy(net)
    try:
        next(fit(net, new_optimizer(net, settings), loss_function, x[:1], y[:1], epochs=range(1)))
    except Exception as error:  # each optimizer has a way of its own to refuse
        named = f"{settings.optimizer} with options {settings.optimizer_options}"
        why = " ".join(str(error).split())
        raise UserError(f"params.yaml: train.optimizer: {named} cannot train this network: {why}") from error


def new_optimizer(net: nn.Module, settings: Train) -> Optimizer:
    """Return the optimizer that the settings name, for all parameters of the network."""
    return optimizer.build(settings.optimizer, net.parameters(), settings.learning_rate, settings.optimizer_options)


def run(params: Params) -> None:
    """Read the points, train, write the network both ways and the record of its training."""
    settings = params.train
    place = device.choose(settings.device)
    x, y = (values.to(place) for values in dataset.read("data/train.pt"))
    net = network.build(params.network.style, x.shape[1], params.network.hidden, y.shape[1])
    network.initialise(net, torch.Generator().manual_seed(settings.seed))
    net.to(place)
    loss_function = getattr(nn, settings.loss)()
    rehearse(net, loss_function, x, y, settings)

    record = Record(x, y, settings.epochs, settings.snapshot_every)
    record.snap(0, net, mean_loss(net, loss_function, x, y))
    steps = fit(net, new_optimizer(net, settings), loss_function, x, y, range(settings.epochs))
    with tqdm(total=settings.epochs, unit="epoch", disable=None) as bar:  # None: silent where stderr is no terminal
        due = time.monotonic() + TICK
        for epoch, loss in enumerate(steps, start=1):
            record.losses[epoch - 1] = loss
            if record.wants_snapshot(epoch):
                record.snap(epoch, net, mean_loss(net, loss_function, x, y))
            if epoch == settings.epochs or time.monotonic() > due:
                record.check()
                bar.set_postfix_str(f"loss={float(loss):.4f}", refresh=False)
                bar.update(epoch - bar.n)
                due = time.monotonic() + TICK

    net.cpu()
    with output.whole("data/net.pkl") as file:
        torch.save(net, file)
    with output.whole("data/net_params.pkl") as file:
        torch.save(net.state_dict(), file)
    history.write_losses("data/loss.csv", record.losses.tolist())
    history.write_snapshots("data/history.npz", record.snapshots())
