"""Train the network by gradient descent and record how it learns.

data/train.pt → data/net.pkl (the whole module), data/net_params.pkl (its state dict), data/loss.csv, data/history.npz.
"""

import copy
import operator
import time
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import Annotated, Literal

import torch
from pydantic import Field, JsonValue
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from stages import dataset, device, files, history, network, optimizer
from stages.batches import Batch, Batches, MicroBatch, fitting_micro_size, keep_freed_memory, weigh
from stages.checkpoint import Checkpoint, fingerprint
from stages.errors import UserError
from stages.network import Network
from stages.params import Exact, Section, StageParams
from stages.ranks import Ranks, joined
from stages.record import Record
from stages.threads import Threads, started

TICK = 0.2  # seconds from one look at the losses, by the progress bar and for nan, to the next


class Train(Section):
    """The section `train` of params.yaml."""

    launcher: Annotated[str, Field(min_length=1)]
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:[0-9]+)?|mps|auto)$")]
    epochs: Annotated[int, Field(gt=0, lt=2**31)]
    batch_size: Annotated[int, Field(gt=0)] | None
    micro_batch_size: Annotated[int, Field(gt=0)] | None
    learning_rate: Annotated[float, Field(gt=0), Exact]
    optimizer: Literal[optimizer.NAMES]
    optimizer_options: dict[str, JsonValue]
    loss: Literal["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"]
    snapshot_every: Annotated[int, Field(gt=0, lt=2**31)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]


class Params(StageParams):
    """What this stage reads of params.yaml."""

    network: Network
    train: Train


def fit(
    threads: Threads, optimizer: Optimizer, loss_function: nn.Module, batches: Iterable[Batch], ranks: Ranks
) -> Iterator[tuple[Batch, Tensor]]:
    """Train the network of the threads, a step a batch; yield after each step its batch and the mean loss before it.

    The loss is a scalar on the device.
    """
    for batch in batches:

        def closure(batch: Batch = batch) -> Tensor:  # an optimizer that searches, LBFGS, calls it again and again
            optimizer.zero_grad()

            def learn(net: nn.Module, micro_batch: MicroBatch) -> Tensor:
                x, y, weight = micro_batch
                prediction = net(x)  # (k, n_output)
                loss = weigh(loss_function(prediction, y), weight)
                loss.backward()
                return loss.detach()

            batch_loss = threads.sum(learn, batch.micro_batches)
            return ranks.sum(batch_loss, threads.net.parameters())

        yield batch, optimizer.step(closure)


@torch.no_grad()
def mean_loss(net: nn.Module, loss_function: nn.Module, batch: Batch, ranks: Ranks) -> Tensor:
    """Return the mean loss over the points of a batch, a scalar on the device."""
    losses = (weigh(loss_function(net(x), y), weight) for x, y, weight in batch.micro_batches)
    return ranks.sum(reduce(operator.add, losses))


def rehearse(net: nn.Module, loss_function: nn.Module, batches: Batches, settings: Train) -> None:
    """Train a copy of the network on one point. Raises UserError where the optimizer refuses its options or the net."""
    net = copy.deepcopy(net)
    point = Batches(batches.x[:1], batches.y[:1], None, 1, Ranks(), 0)
    try:
        next(fit(Threads(net), new_optimizer(net, settings), loss_function, [point.full], Ranks()))
    except Exception as error:  # each optimizer has a way of its own to refuse
        named = f"{settings.optimizer} with options {settings.optimizer_options}"
        why = " ".join(str(error).split())
        raise UserError(f"params.yaml: train.optimizer: {named} cannot train this network: {why}") from error


def new_optimizer(net: nn.Module, settings: Train) -> Optimizer:
    """Return the optimizer that the settings name, for all parameters of the network."""
    return optimizer.build(settings.optimizer, net.parameters(), settings.learning_rate, settings.optimizer_options)


def train(net: nn.Module, batches: Batches, settings: Train, ranks: Ranks, checkpoint: Checkpoint) -> Record:
    """Train the network in place and return how it learned."""
    keep_freed_memory()
    loss_function = getattr(nn, settings.loss)()
    rehearse(net, loss_function, batches, settings)
    optimizer = new_optimizer(net, settings)
    record = Record(batches.x, batches.y, settings.epochs, settings.snapshot_every)
    checkpoint.restore(net=net, optimizer=optimizer, record=record)
    silent = ranks.rank > 0 or None  # None: where stderr is no terminal
    bar = tqdm(total=settings.epochs, initial=record.epoch, unit="epoch", disable=silent)
    with bar, checkpoint.on_stop(), started(net, batches.x.device) as threads:

        def look() -> None:
            record.settle()
            bar.set_postfix_str(f"loss={record.latest:.4f}", refresh=False)
            bar.update(min(record.epoch, settings.epochs) - bar.n)

        due = time.monotonic() + TICK
        for epoch in range(record.epoch, settings.epochs):
            record.snap(net)
            for batch, loss in fit(threads, optimizer, loss_function, batches.epoch(epoch, record.steps), ranks):
                record.add(loss, batch.weight)
                if checkpoint.stopped or time.monotonic() > due:
                    look()
                    checkpoint.keep(f"epoch {epoch} of {settings.epochs}", net=net, optimizer=optimizer, record=record)
                    due = time.monotonic() + TICK
            record.end_epoch()
        record.snap(net)
        record.add(mean_loss(net, loss_function, batches.full, ranks), 1.0)
        record.end_epoch()
        look()
    return record


def run(params: Params) -> None:
    """Read the points, train, write the network both ways and the record of its training."""
    settings = params.train
    place = device.choose(settings.device)
    x, y = (values.to(place) for values in dataset.read("data/train.pt"))
    net = network.build(params.network.style, x.shape[1], params.network.hidden, y.shape[1])
    network.initialise(net, torch.Generator().manual_seed(settings.seed))
    micro_size = settings.micro_batch_size or fitting_micro_size(place, x.shape[1] + params.network.hidden + y.shape[1])
    with joined(place) as ranks:
        batches = Batches(x, y, settings.batch_size, micro_size, ranks, settings.seed)
        decisive = params.model_dump(include={"network": True, "train": True}, exclude={"train": {"launcher"}})
        checkpoint = Checkpoint(fingerprint(params.kernels, decisive, ranks), ranks)
        record = train(net.to(place), batches, settings, ranks, checkpoint)
    if ranks.rank > 0:
        return

    net.cpu()
    with files.whole("data/net.pkl") as file:
        torch.save(net, file)
    with files.whole("data/net_params.pkl") as file:
        torch.save(net.state_dict(), file)
    history.write_losses("data/loss.csv", record.losses[: settings.epochs].tolist())
    history.write_snapshots("data/history.npz", record.snapshots())
    checkpoint.remove()
