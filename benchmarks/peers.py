"""The same training by this project and by its peers, on the mean squared error.

Each function takes x, float32 (n, n_feature), y, float32 (n, n_output), and the work to do. Each imports its library
itself, so that a process holds one alone.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from benchmarks.process import PROJECT

SNAPSHOTS = 20  # that this project takes of a training, and one more at its end, as in the lesson


class Work(NamedTuple):
    """What every peer trains, and how; by default as in the lesson."""

    widths: tuple[int, int, int] = (1, 10, 1)  # n_feature, n_hidden, n_output, with a ReLU between
    optimizer: str = "SGD"  # plain, or "Adam" or "AdamW" with the options that torch gives it
    learning_rate: float = 0.2
    batch_size: int | None = None  # None: all points
    networks: int = 1  # side by side, each with its own order of batches; only this project and jax_epoch train several


class Peer(NamedTuple):
    """A training that can go on and on."""

    fit: Callable[[int], object]  # train for that many epochs more
    parameters: Callable[[], list[Any]]  # weight (n_hidden, n_feature), bias, weight (n_output, n_hidden), bias
    prepare: Callable[[int], object] = lambda epochs: None  # compile what depends on the number of epochs of a fit


class Terminal(io.StringIO):
    """A stderr that says it is a terminal, for a progress bar to write to."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def first_parameters(n_feature: int, n_hidden: int, n_output: int) -> list[ndarray]:
    """Return what every peer starts from: U(-1/√fan_in, 1/√fan_in)."""
    draw = np.random.default_rng(11).uniform
    shapes = [
        ((n_hidden, n_feature), n_feature),
        ((n_hidden,), n_feature),
        ((n_output, n_hidden), n_hidden),
        ((n_output,), n_hidden),
    ]
    return [(draw(-1, 1, shape) / np.sqrt(fan_in)).astype(np.float32) for shape, fan_in in shapes]


def mean_squared_error(parameters: list[Any], x: ndarray, y: ndarray) -> float:
    """Return the loss of the network with these parameters, in float64."""
    weight, bias, out_weight, out_bias = (np.array(values.tolist()) for values in parameters)
    prediction = np.maximum(x @ weight.T + bias, 0) @ out_weight.T + out_bias
    return float(np.square(prediction - y).mean())


def torch_net(work: Work) -> Any:
    """Return the project's network with the first parameters."""
    import torch

    from stages.network import Net

    net = Net(*work.widths)
    for parameter, values in zip(net.parameters(), first_parameters(*work.widths), strict=True):
        parameter.data = torch.from_numpy(values)
    return net


def native(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by this project with `kernels: native` and `train.steps: eager`."""
    return _ours(x, y, work, "eager")


def compiled(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by this project with `kernels: native` and `train.steps: compiled`."""
    return _ours(x, y, work, "compiled")


def _ours(x: ndarray, y: ndarray, work: Work, steps: str) -> Peer:
    """Train by this project's `train`, with record, progress bar and checkpoints. All contact with it is here."""
    import torch

    from stages.dataset import Dataset
    from stages.ensemble import Stack, seeds_of, width
    from stages.runtime import params
    from stages.train.batches import Batches, Points, fitting_micro_size
    from stages.train.checkpoint.store import PATH, Checkpoint
    from stages.train.ranks import Ranks
    from stages.train.record import Record, snapshot_points
    from stages.train.settings import Train
    from stages.train.training import train
    from stages.train.validation import folds_of

    section = params.load(str(PROJECT / "params.yaml"))["train"]
    section |= {"optimizer": work.optimizer, "learning_rate": work.learning_rate, "batch_size": work.batch_size}
    section |= {"steps": steps, "networks": work.networks}
    settings, ranks = Train.model_validate(section), Ranks()
    nets = [torch_net(work) for _ in range(work.networks)]
    net = Stack(nets, work.widths[0]) if work.networks > 1 else nets[0]
    points, micro_size = (
        Dataset(torch.from_numpy(x), torch.from_numpy(y)),
        fitting_micro_size(torch.device("cpu"), width(net)),
    )
    seeds = seeds_of(settings.seed, work.networks)
    batches = Batches(Points(points.x, points.y, len(x)), work.batch_size, micro_size, ranks, seeds)
    shown = snapshot_points(points, folds_of(len(x), 0, 1, settings.seed)).x

    def fit(epochs: int) -> None:
        lasting = settings.model_copy(update={"epochs": epochs, "snapshot_every": max(1, epochs // SNAPSHOTS)})
        checkpoint = Checkpoint({}, epochs, ranks)
        with redirect_stderr(Terminal()):
            record = Record(shown, y.shape[1], epochs, lasting.snapshot_every, work.networks)
            train(net, batches, None, lasting, record, checkpoint)
        Path(PATH).unlink()  # else the next training would go on from it

    return Peer(fit, lambda: list(net.parameters()))


def plain(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by the five steps, and nothing else."""
    import torch

    points, targets = torch.from_numpy(x), torch.from_numpy(y)

    def batches() -> Iterable[Any]:
        if work.batch_size is None:
            return [(points, targets)]
        return ((points[rows], targets[rows]) for rows in torch.randperm(len(points)).split(work.batch_size))

    return _five_steps(work, batches)


def dataloader(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by the five steps over a DataLoader, which picks and collates point by point."""
    loader = _loader(x, y, batch_size=work.batch_size or len(x), shuffle=work.batch_size is not None)
    return _five_steps(work, lambda: loader)


def batch_sampler(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by the five steps over a DataLoader that picks a batch at once."""
    from torch.utils.data import BatchSampler, RandomSampler

    sampler = BatchSampler(RandomSampler(range(len(x))), work.batch_size or len(x), False)
    loader = _loader(x, y, sampler=sampler, batch_size=None)
    return _five_steps(work, lambda: loader)


def _five_steps(work: Work, batches: Callable[[], Iterable[Any]]) -> Peer:
    import torch

    net, loss_function = torch_net(work), torch.nn.MSELoss()
    optimizer = _optimizer_class(work)(net.parameters(), lr=work.learning_rate)

    def fit(epochs: int) -> None:
        for _ in range(epochs):
            for x, y in batches():
                prediction = net(x)
                loss = loss_function(prediction, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return Peer(fit, lambda: list(net.parameters()))


def _optimizer_class(work: Work) -> Any:
    import torch

    return getattr(torch.optim, work.optimizer)


def _loader(x: ndarray, y: ndarray, **options: Any) -> Any:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), **options)


def lightning(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by Lightning, barebones: no logging, checkpoints, progress bar or checks. The full batch is made once."""
    import torch
    from pytorch_lightning import LightningModule, Trainer
    from torch.utils.data import DataLoader

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch_net(work)

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            x, y = batch
            return torch.nn.functional.mse_loss(self.net(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return _optimizer_class(work)(self.parameters(), lr=work.learning_rate)

    warnings.simplefilter("ignore")
    logging.disable()
    module, size = Module(), work.batch_size
    whole: Any = [(torch.from_numpy(x), torch.from_numpy(y))]  # a list will do for a Dataset
    loader = _loader(x, y, batch_size=size, shuffle=True) if size else DataLoader(whole, batch_size=None)
    return Peer(
        lambda epochs: Trainer(max_epochs=epochs, accelerator="cpu", barebones=True).fit(module, loader),
        lambda: list(module.parameters()),
    )


def skorch(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by skorch, silent and without validation. The full batch is made once."""
    import torch
    from skorch import NeuralNetRegressor

    def whole(dataset: Any, **_: object) -> list[Any]:
        return [(dataset.X, dataset.y)]

    size, steps = work.batch_size, {"optimizer": _optimizer_class(work), "lr": work.learning_rate}
    batches = {"batch_size": size, "iterator_train__shuffle": True} if size else {"iterator_train": whole}
    model = NeuralNetRegressor(torch_net(work), train_split=None, verbose=0, **steps, **batches).initialize()
    points, targets = torch.from_numpy(x), torch.from_numpy(y)
    return Peer(
        lambda epochs: model.partial_fit(points, targets, epochs=epochs), lambda: list(model.module_.parameters())
    )


def sklearn(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by MLPRegressor. For AdamW it takes Adam, which is the nearest that it has: AdamW without weight decay.

    Its loss is half the mean squared error, so the learning rate of its SGD is twice the others'.
    """
    from sklearn.neural_network import MLPRegressor

    warnings.simplefilter("ignore")  # it finds that it has not converged, and a column in y
    sgd: dict[str, Any] = {"solver": "sgd", "momentum": 0, "nesterovs_momentum": False}
    options, scale = {"SGD": (sgd, 2), "AdamW": ({"solver": "adam"}, 1)}[work.optimizer]
    options |= {"alpha": 0, "shuffle": work.batch_size is not None, "hidden_layer_sizes": work.widths[1:2]}
    endless = {"tol": 0, "n_iter_no_change": 10**9, "warm_start": True}
    model = MLPRegressor(batch_size=1, learning_rate_init=1e-30, max_iter=1, **options, **endless)
    model.fit(x[:1], y[:1])  # makes the parameters that are set here
    weight, bias, out_weight, out_bias = first_parameters(*work.widths)
    model.coefs_, model.intercepts_ = [weight.T.copy(), out_weight.T.copy()], [bias, out_bias]
    model.set_params(batch_size=work.batch_size or len(x), learning_rate_init=scale * work.learning_rate)
    return Peer(
        lambda epochs: model.set_params(max_iter=epochs).fit(x, y),
        lambda: [model.coefs_[0].T, model.intercepts_[0], model.coefs_[1].T, model.intercepts_[1]],
    )


def jax_epoch(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by JAX: an epoch is one compiled function, called from Python with an order that NumPy draws."""
    import jax

    random, (state, epoch) = np.random.default_rng(0), _jax(work)
    if work.networks > 1:
        epoch = jax.vmap(epoch, in_axes=(0, None, None, 0))
        state = jax.tree.map(lambda values: jax.numpy.stack([values] * work.networks), state)
    run, points, targets = jax.jit(epoch, donate_argnums=0), jax.numpy.asarray(x), jax.numpy.asarray(y)

    def orders() -> ndarray:
        drawn = [random.permutation(len(x)).astype(np.int32) for _ in range(work.networks)]
        return np.stack(drawn) if work.networks > 1 else drawn[0]

    def fit(epochs: int) -> None:
        nonlocal state
        for _ in range(epochs):
            order = orders() if work.batch_size else None
            state, loss = run(state, points, targets, order)
        loss.block_until_ready()

    return Peer(fit, lambda: state[0])


def jax_scan(x: ndarray, y: ndarray, work: Work) -> Peer:
    """Train by JAX: all epochs are one compiled function, a scan, which also draws the orders."""
    import jax
    import jax.numpy as jnp

    seeds, (state, epoch) = count(), _jax(work)
    points, targets = jnp.asarray(x), jnp.asarray(y)

    def scan(epochs: int, state: Any, x: jax.Array, y: jax.Array, seed: int) -> tuple[Any, jax.Array]:
        def shuffled(state: Any, key: jax.Array | None) -> tuple[Any, jax.Array]:
            # Sorts once; jax.random.permutation sorts twice.
            order = None if key is None else jnp.argsort(jax.random.bits(key, len(x)))
            return epoch(state, x, y, order)

        keys = jax.random.split(jax.random.key(seed), epochs) if work.batch_size else None
        return jax.lax.scan(shuffled, state, keys, length=epochs)

    @cache
    def compiled(epochs: int) -> Any:
        return jax.jit(partial(scan, epochs), donate_argnums=0).lower(state, points, targets, 0).compile()

    def fit(epochs: int) -> None:
        nonlocal state
        state, losses = compiled(epochs)(state, points, targets, next(seeds))
        losses.block_until_ready()

    return Peer(fit, lambda: state[0], compiled)


def _jax(work: Work) -> tuple[Any, Callable[..., Any]]:
    """Return the first state, of parameters and optimizer, and an epoch, which turns it into the next and a loss.

    An epoch also takes x, y and the order of the points, None for the full batch.
    """
    import jax
    import jax.numpy as jnp
    import optax

    adamw = partial(optax.adamw, weight_decay=0.01)  # torch's default; optax has another
    optimizer = {"SGD": optax.sgd, "Adam": optax.adam, "AdamW": adamw}[work.optimizer](work.learning_rate)
    first = [jnp.array(values) for values in first_parameters(*work.widths)]

    def loss_of(parameters: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        weight, bias, out_weight, out_bias = parameters
        return jnp.mean((jax.nn.relu(x @ weight.T + bias) @ out_weight.T + out_bias - y) ** 2)

    def step(state: Any, x: jax.Array, y: jax.Array) -> tuple[Any, jax.Array]:
        parameters, moments = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        updates, moments = optimizer.update(gradients, moments, parameters)
        return (optax.apply_updates(parameters, updates), moments), loss

    def epoch(state: Any, x: jax.Array, y: jax.Array, order: jax.Array | None) -> tuple[Any, jax.Array]:
        if order is None or work.batch_size is None:
            return step(state, x, y)
        even = len(order) // work.batch_size * work.batch_size
        batches, rest = order[:even].reshape(-1, work.batch_size), order[even:]
        state, losses = jax.lax.scan(lambda state, rows: step(state, x[rows], y[rows]), state, batches)
        return step(state, x[rest], y[rest]) if len(rest) else (state, losses[-1])

    return (first, optimizer.init(first)), epoch
