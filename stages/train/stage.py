"""Train the network by gradient descent and record how it learns.

data/train.pt → data/net.pkl (the whole module), data/net_params.pkl (its state dict), data/loss.csv, data/history.npz.
"""

import numpy as np
import torch
from torch import Tensor, nn

from stages import dataset, history, models
from stages.dataset import Dataset
from stages.ensemble import Stack, seeds_of, width
from stages.history import Snapshots
from stages.models import Blueprint
from stages.network import Network
from stages.runtime.params import StageParams
from stages.runtime.spread import evenly_spread
from stages.tabular import Tabular, ensemble_of, standardized
from stages.train import checkpoint, layers
from stages.train.batches import Batches, fitting_micro_size
from stages.train.checkpoint import Checkpoint
from stages.train.device import choose_device
from stages.train.held_out import measure_held_out
from stages.train.layers import Demands
from stages.train.loss import fitting_loss
from stages.train.ranks import Ranks, joined
from stages.train.record import Record, snapshot_points
from stages.train.restorable import require_restorable
from stages.train.settings import Train
from stages.train.summary import summary
from stages.train.training import train
from stages.train.validation import folds_of, hold_back

CHECKED_POINTS = 16  # that the network predicts before training, restored both ways and in each style


class Params(StageParams):
    """What this stage reads from params.yaml."""

    network: Network
    train: Train


def innermost(model: nn.Module) -> nn.Module:
    """Return the part of a model that is trained: the network, or the networks side by side."""
    if ensemble := ensemble_of(model):
        return ensemble.networks
    return model.net if isinstance(model, Tabular) else model


def in_units_of_network(x: Tensor, model: nn.Module) -> Tensor:
    """Return x, (n, n_feature), in original units, as the network in the model takes it."""
    return standardized(x, model.x_mean, model.x_deviation) if isinstance(model, Tabular) else x


def in_original_units(snapshots: Snapshots, model: nn.Module) -> Snapshots:
    """Return the snapshots with their predictions, which are in the units of the network, in the original ones."""
    if not isinstance(model, Tabular):
        return snapshots

    def in_units(values: np.ndarray) -> np.ndarray:
        return model.in_original_units(torch.from_numpy(values)).numpy()

    networks = None if snapshots.networks is None else in_units(snapshots.networks)
    predictions = in_units(snapshots.predictions)
    if model.predicts_classes and networks is not None:  # probabilities do not have the mean that logits have
        predictions = networks.mean(axis=1)
    return snapshots._replace(predictions=predictions, networks=networks)


def examined(model: nn.Module, blueprint: Blueprint, seed: int, points: Dataset) -> Demands:
    """Return what the layers of a model's networks demand. Raises UserError if they cannot be trained on the points."""
    one, net = blueprint.of_one(), innermost(model)
    demands = layers.examine(one.build(seed), points.x, points.y)
    if isinstance(net, Stack):
        layers.ensure_independent(net, one, seed, points.x, demands)
    return demands


def micro_batch_size(settings: Train, demands: Demands, points: int, fitting: int) -> int:
    """Return how many points to compute together: as set, else a batch if layers demand that, else what is fitting."""
    if settings.micro_batch_size:
        return settings.micro_batch_size
    return (settings.batch_size or points) if demands.whole_batches else fitting


def run(params: Params) -> str:
    """Read the points, train, write the network both ways and the record of its training; return how well it went."""
    settings = params.train
    device = choose_device(settings.device)
    points = dataset.read("data/train.pt")
    settings = settings.model_copy(update={"loss": fitting_loss(settings.loss, classes=bool(points.names.classes))})
    folds = folds_of(len(points.x), settings.validation_fraction, settings.networks, settings.seed)
    blueprint = Blueprint.of(points, params.network, settings.networks)
    model = blueprint.build(settings.seed)
    net = innermost(model)
    shown = snapshot_points(points, folds)
    if isinstance(model, Tabular) and params.network.standardize:
        model.fit(points.x, points.y)
        model.standardize_(points.x, points.y)

    with joined(device) as ranks:
        demands = examined(model, blueprint, settings.seed, points)
        require_restorable(model, blueprint, shown.x[evenly_spread(len(shown.x), CHECKED_POINTS)])
        training, held_back = hold_back(points.x.to(device), points.y.to(device), folds, points.classes)
        points = points._replace(x=training.x.cpu(), y=training.y.cpu())
        micro_size = micro_batch_size(settings, demands, training.n, fitting_micro_size(device, width(net)))
        seeds = seeds_of(settings.seed, settings.networks)
        batches = Batches(training, settings.batch_size, micro_size, ranks, seeds)
        validation = held_back and Batches(held_back, None, micro_size, ranks, seeds)
        layers.ensure_whole_batches(demands, batches)
        x = in_units_of_network(shown.x, model).to(device)
        record = Record(x, points.y.shape[1], settings.epochs, settings.snapshot_every, settings.networks)
        trained = train(net.to(device), batches, validation, settings, record, new_checkpoint(params, ranks), demands)
    if ranks.rank > 0:
        return ""

    half_widths = measure_held_out(model.cpu(), points, folds)
    curves, snapshots = record.curves(), in_original_units(record.snapshots(shown), model)
    models.save_net("data/net.pkl", model)
    models.save_params("data/net_params.pkl", model)
    history.write_losses("data/loss.csv", curves)
    history.write_snapshots("data/history.npz", snapshots._replace(half_widths=half_widths))
    outcome = summary(
        curves,
        trained.lowest,
        snapshots.losses[-1],
        settings.loss,
        points,
        held_back,
        model,
        standardize=params.network.standardize,
    )
    chosen = f"{settings.loss}: " if params.train.loss == "auto" else ""
    steps = f"; {trained.choice}" if trained.choice else ""
    return f"{chosen}{outcome}{steps} -> data/net.pkl, data/net_params.pkl"


def new_checkpoint(params: Params, ranks: Ranks) -> Checkpoint:
    """Return the checkpoint of this training. Raises UserError if another rank is about to train something else."""
    training = checkpoint.of_training(params.kernels, params.network, params.train)
    ranks.compare(training | {"train.epochs": str(params.train.epochs)})
    machine = checkpoint.of_machine(params.kernels, params.train.steps, ranks)
    return Checkpoint(training | machine, params.train.epochs, ranks)


def finish() -> None:
    """Turn the checkpoint into that of a finished training, now that nothing the stage read has changed."""
    checkpoint.finish()
