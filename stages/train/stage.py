"""Train the network by gradient descent and record how it learns.

data/train.pt → data/net.pkl (the whole module), data/net_params.pkl (its state dict), data/loss.csv, data/history.npz.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from stages import dataset, history, models, network
from stages.models import Blueprint
from stages.network import Network
from stages.params import Exact, Points, Section, StageParams, must_be
from stages.train import checkpoint, fingerprint, layers
from stages.train.batches import Batches, fitting_micro_size, keep_freed_memory
from stages.train.checkpoint import Checkpoint
from stages.train.device import choose_device
from stages.train.loop import LossFunction, descend
from stages.train.optimizer import OptimizerName, OptimizerOptions, new_optimizer, rehearse
from stages.train.parallel import workers
from stages.train.progress import progress
from stages.train.record import Record
from stages.train.rendezvous import joined


class Train(Section):
    """The section `train` of params.yaml."""

    launcher: Annotated[str, Field(min_length=1)]
    device: Annotated[
        str, Field(pattern=r"^(cpu|cuda(:[0-9]{1,4})?|mps|auto)$"), must_be("cpu, cuda, cuda:N, mps or auto")
    ]
    epochs: Annotated[int, Field(gt=0, lt=2**31)]
    batch_size: Points | None
    micro_batch_size: Points | None
    learning_rate: Annotated[float, Field(gt=0, le=1e30), Exact]
    optimizer: OptimizerName
    optimizer_options: OptimizerOptions
    loss: Literal["MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss"]
    snapshot_every: Annotated[int, Field(gt=0, lt=2**31)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]

    @field_validator("snapshot_every")
    @classmethod
    def _at_most_a_million_snapshots(cls, every: int, info: ValidationInfo) -> int:
        if "epochs" in info.data and info.data["epochs"] > 10**6 * every:
            raise ValueError(f"must be at least a millionth of train.epochs ({info.data['epochs']})")
        return every


class Params(StageParams):
    """What this stage reads from params.yaml."""

    network: Network
    train: Train


def train(net: nn.Module, batches: Batches, settings: Train, checkpoint: Checkpoint) -> Record:
    """Train the network in place and return how it learned.

    Raises UserError if the layers or the optimizer cannot train as set, a loss is not finite, or the user asks to stop.
    """
    keep_freed_memory()
    loss_function = getattr(nn, settings.loss)()
    recipe = settings.optimizer, net, settings.learning_rate, settings.optimizer_options.model_dump(exclude_unset=True)
    few_x, few_y = batches.x[:2], batches.y[:2]
    rehearse(*recipe, loss_function, few_x, few_y)
    random = layers.draws_random_numbers(net, few_x)
    optimizer = new_optimizer(*recipe)
    record = Record(batches.x, batches.y, settings.epochs, settings.snapshot_every)
    checkpoint.restore(net=net, optimizer=optimizer, record=record)
    with (
        workers(net, loss_function, batches, in_turn=random) as everywhere,
        progress(record, checkpoint, net=net, optimizer=optimizer) as after_step,
    ):
        for epoch in range(record.epoch, settings.epochs):
            record.snap(net)
            for batch, loss in descend(optimizer, batches.epoch(epoch, skip=record.steps, seeded=random), everywhere):
                record.add(loss, batch.weight)
                after_step()
            record.end_epoch()
        if record.epoch == settings.epochs:  # else resumed from a checkpoint that has the final loss
            record.snap(net)
            record.add(everywhere(mean_loss, batches.full), weight=1)
            record.end_epoch()
    return record


@torch.no_grad()
def mean_loss(net: nn.Module, loss_function: LossFunction, x: Tensor, y: Tensor) -> Tensor:
    """Return the loss at x, (n, n_feature), and y, (n, n_output), a scalar; compute no gradient."""
    return loss_function(network.predict(net, x), y)


def run(params: Params) -> None:
    """Read the points, train, write the network both ways and the record of its training."""
    settings, hidden = params.train, params.network.hidden
    device = choose_device(settings.device)
    points = dataset.read("data/train.pt")
    x, y = points.x.to(device), points.y.to(device)
    net = network.build(params.network.style, x.shape[1], hidden, y.shape[1], settings.seed)
    fitting = fitting_micro_size(device, x.shape[1] + hidden + y.shape[1])
    if layers.whole_batch_layers(net, points.x):
        fitting = settings.batch_size or len(x)
    micro_size = settings.micro_batch_size or fitting
    with joined(device) as ranks:
        batches = Batches(x, y, settings.batch_size, micro_size, ranks, settings.seed)
        layers.check(net, batches)
        models.check(net.cpu(), params.network.style, Blueprint(x.shape[1], hidden, y.shape[1]), points.x[:2])
        decisive = params.model_dump(include={"network": True, "train": True}, exclude={"train": {"launcher"}})
        training = fingerprint.of_training(params.kernels, decisive)
        ranks.compare(training)
        resumable = Checkpoint(training | fingerprint.of_machine(params.kernels, ranks), ranks)
        record = train(net.to(device), batches, settings, resumable)
    if ranks.rank > 0:
        return

    models.save_net("data/net.pkl", net.cpu())
    models.save_params("data/net_params.pkl", net)
    history.write_losses("data/loss.csv", {"loss": record.epoch_losses()})
    history.write_snapshots("data/history.npz", record.snapshots())


def finish() -> None:
    """Remove the checkpoint, which is kept until the stage has checked that nothing it read has changed."""
    checkpoint.remove()
