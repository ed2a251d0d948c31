"""Train the network by gradient descent and record how it learns.

data/train.pt → data/net.pkl (the whole module), data/net_params.pkl (its state dict), data/loss.csv, data/history.npz.
"""

import torch

from stages import dataset, history, models, network
from stages.dataset import Dataset
from stages.history import Snapshots
from stages.models import Blueprint
from stages.network import Network
from stages.runtime.params import StageParams
from stages.runtime.spread import evenly_spread
from stages.tabular import Tabular
from stages.train import checkpoint, layers
from stages.train.batches import Batches, fitting_micro_size
from stages.train.checkpoint import Checkpoint
from stages.train.device import choose_device
from stages.train.ranks import joined
from stages.train.record import snapshot_points
from stages.train.settings import Train
from stages.train.summary import summary
from stages.train.training import train
from stages.train.validation import hold_back


class Params(StageParams):
    """What this stage reads from params.yaml."""

    network: Network
    train: Train


def in_original_units(snapshots: Snapshots, shown: Dataset, model: Tabular) -> Snapshots:
    """Return the snapshots in the columns' original units, with their names; `shown`: their points, in these units."""
    predictions = model.unstandardize(torch.from_numpy(snapshots.predictions)).numpy()
    return snapshots._replace(x=shown.x.numpy(), y=shown.y.numpy(), predictions=predictions, columns=shown.columns)


def run(params: Params) -> str:
    """Read the points, train, write the network both ways and the record of its training; return how well it went."""
    settings = params.train
    device = choose_device(settings.device)
    points, held_back = hold_back(dataset.read("data/train.pt"), settings.validation_fraction, settings.seed)
    blueprint = Blueprint.of(points, params.network)
    model = blueprint.build(settings.seed)
    net = model.net if isinstance(model, Tabular) else model
    shown = snapshot_points(points)  # before they are standardized in place
    if isinstance(model, Tabular) and params.network.standardize:
        model.fit(points.x, points.y)
        model.standardize_(points.x, points.y)
        if held_back:
            model.standardize_(held_back.x, held_back.y)
    fitting = fitting_micro_size(device, network.width(net))
    if layers.whole_batch_layers(net, points.x):
        fitting = settings.batch_size or len(points.x)
    micro_size = settings.micro_batch_size or fitting
    with joined(device) as ranks:
        batches = Batches(
            points.x.to(device), points.y.to(device), settings.batch_size, micro_size, ranks, settings.seed
        )
        validation = held_back and Batches(
            held_back.x.to(device), held_back.y.to(device), None, micro_size, ranks, settings.seed
        )
        layers.check(net, batches)
        models.check(model, blueprint, shown.x[evenly_spread(len(shown.x), 16)])
        training = checkpoint.of_training(params.kernels, params.network, settings)
        ranks.compare(training | {"train.epochs": str(settings.epochs)})
        resumable = Checkpoint(training | checkpoint.of_machine(params.kernels, ranks), settings.epochs, ranks)
        compiled = params.kernels == "compiled"
        record = train(net.to(device), batches, validation, settings, resumable, compiled=compiled)
    if ranks.rank > 0:
        return ""

    snapshots, curves = record.snapshots(), record.curves()
    models.save_net("data/net.pkl", model.cpu())
    models.save_params("data/net_params.pkl", model)
    history.write_losses("data/loss.csv", curves)
    if isinstance(model, Tabular):
        snapshots = in_original_units(snapshots, shown, model)
    history.write_snapshots("data/history.npz", snapshots)
    told = summary(curves, snapshots.losses[-1], settings.loss, points, model)
    return f"{told} -> data/net.pkl, data/net_params.pkl"


def finish() -> None:
    """Turn the checkpoint into that of a finished training, now that nothing the stage read has changed."""
    checkpoint.finish()
