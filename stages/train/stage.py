"""Train the network by gradient descent and record how it learns.

data/train.pt → data/net.pkl (the whole module), data/net_params.pkl (its state dict), data/loss.csv, data/history.npz.
"""

from stages import dataset, history, models, network
from stages.models import Blueprint
from stages.network import Network
from stages.params import StageParams
from stages.train import checkpoint, fingerprint, layers
from stages.train.batches import Batches, fitting_micro_size
from stages.train.checkpoint import Checkpoint
from stages.train.device import choose_device
from stages.train.rendezvous import joined
from stages.train.settings import Train
from stages.train.training import train
from stages.train.validation import hold_back


class Params(StageParams):
    """What this stage reads from params.yaml."""

    network: Network
    train: Train


def run(params: Params) -> None:
    """Read the points, train, write the network both ways and the record of its training."""
    settings, hidden = params.train, params.network.hidden
    device = choose_device(settings.device)
    points, held_back = hold_back(dataset.read("data/train.pt"), settings.validation_fraction, settings.seed)
    x, y = points.x.to(device), points.y.to(device)
    net = network.build(params.network.style, x.shape[1], hidden, y.shape[1], settings.seed)
    fitting = fitting_micro_size(device, x.shape[1] + hidden + y.shape[1])
    if layers.whole_batch_layers(net, points.x):
        fitting = settings.batch_size or len(x)
    micro_size = settings.micro_batch_size or fitting
    with joined(device) as ranks:
        batches = Batches(x, y, settings.batch_size, micro_size, ranks, settings.seed)
        validation = held_back and Batches(
            held_back.x.to(device), held_back.y.to(device), None, micro_size, ranks, settings.seed
        )
        layers.check(net, batches)
        models.check(net.cpu(), params.network.style, Blueprint(x.shape[1], hidden, y.shape[1]), points.x[:2])
        training = fingerprint.of_training(params.kernels, params.network, settings)
        ranks.compare(training | {"train.epochs": str(settings.epochs)})
        resumable = Checkpoint(training | fingerprint.of_machine(params.kernels, ranks), settings.epochs, ranks)
        record = train(net.to(device), batches, validation, settings, resumable)
    if ranks.rank > 0:
        return

    models.save_net("data/net.pkl", net.cpu())
    models.save_params("data/net_params.pkl", net)
    history.write_losses("data/loss.csv", record.curves())
    history.write_snapshots("data/history.npz", record.snapshots())


def finish() -> None:
    """Put the checkpoint aside, which is kept until the stage has checked that nothing it read has changed."""
    checkpoint.finish()
