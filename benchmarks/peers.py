"""The same training by this project and by its peers: plain SGD on the mean squared error, full batch or mini-batches.

Each function takes x and y, float32 (n, 1), the parameters to start from, and a batch size, None for all points. Each
imports its library itself, so that a process holds one alone.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from benchmarks.process import PROJECT

RATE = 0.2


class Peer(NamedTuple):
    """A training that can go on and on."""

    fit: Callable[[int], object]  # train for that many epochs more
    parameters: Callable[[], list[Any]]  # hidden.weight (10, 1), hidden.bias, predict.weight (1, 10), predict.bias


class Terminal(io.StringIO):
    """A stderr that says it is a terminal, for a progress bar to write to."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def first_parameters() -> list[ndarray]:
    """Return what every peer starts from: U(-1/√fan_in, 1/√fan_in)."""
    draw = np.random.default_rng(11).uniform
    shapes = [((10, 1), 1), ((10,), 1), ((1, 10), 10), ((1,), 10)]
    return [(draw(-1, 1, shape) / np.sqrt(fan_in)).astype(np.float32) for shape, fan_in in shapes]


def mean_squared_error(parameters: list[Any], x: ndarray, y: ndarray) -> float:
    """Return the loss of the network with these parameters, in float64."""
    weight, bias, out_weight, out_bias = (np.array(values.tolist()) for values in parameters)
    prediction = np.maximum(x @ weight.T + bias, 0) @ out_weight.T + out_bias
    return float(np.square(prediction - y).mean())


def torch_net(first: list[ndarray]) -> Any:
    """Return the network of the lesson with these parameters."""
    import torch

    from stages.network import Net

    net = Net(1, 10, 1)
    for parameter, values in zip(net.parameters(), first, strict=True):
        parameter.data = torch.from_numpy(values)
    return net


def ours(x: ndarray, y: ndarray, first: list[ndarray], size: int | None) -> Peer:
    """Train by this project's `train`, with record, progress bar and checkpoints. All contact with it is here."""
    import torch

    from stages import params
    from stages.train.batches import Batches, fitting_micro_size
    from stages.train.checkpoint import PATH, Checkpoint
    from stages.train.ranks import Ranks
    from stages.train.settings import Train
    from stages.train.training import train

    section = params.load(str(PROJECT / "params.yaml"))["train"] | {"batch_size": size, "learning_rate": RATE}
    settings = Train.model_validate(section)
    net, ranks, micro_size = torch_net(first), Ranks(), fitting_micro_size(torch.device("cpu"), 12)
    batches = Batches(torch.from_numpy(x), torch.from_numpy(y), size, micro_size, ranks, settings.seed)

    def fit(epochs: int) -> None:
        checkpoint = Checkpoint({}, epochs, ranks)
        with redirect_stderr(Terminal()):
            train(net, batches, None, settings.model_copy(update={"epochs": epochs}), checkpoint)
        Path(PATH).unlink()  # else the next training would go on from it

    return Peer(fit, lambda: list(net.parameters()))


def plain(x: ndarray, y: ndarray, first: list[ndarray], size: int | None) -> Peer:
    """Train by the five steps, and nothing else."""
    import torch

    points, targets = torch.from_numpy(x), torch.from_numpy(y)

    def batches() -> Iterable[Any]:
        if size is None:
            return [(points, targets)]
        return ((points[rows], targets[rows]) for rows in torch.randperm(len(points)).split(size))

    return _five_steps(first, batches)


def dataloader(x: ndarray, y: ndarray, first: list[ndarray], size: int | None) -> Peer:
    """Train by the five steps over a DataLoader, which picks and collates point by point."""
    loader = _loader(x, y, batch_size=size or len(x), shuffle=size is not None)
    return _five_steps(first, lambda: loader)


def batch_sampler(x: ndarray, y: ndarray, first: list[ndarray], size: int | None) -> Peer:
    """Train by the five steps over a DataLoader that picks a batch at once."""
    from torch.utils.data import BatchSampler, RandomSampler

    loader = _loader(x, y, sampler=BatchSampler(RandomSampler(range(len(x))), size or len(x), False), batch_size=None)
    return _five_steps(first, lambda: loader)


def _five_steps(first: list[ndarray], batches: Callable[[], Iterable[Any]]) -> Peer:
    import torch

    net = torch_net(first)
    optimizer, loss_function = torch.optim.SGD(net.parameters(), lr=RATE), torch.nn.MSELoss()

    def fit(epochs: int) -> None:
        for _ in range(epochs):
            for x, y in batches():
                prediction = net(x)
                loss = loss_function(prediction, y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return Peer(fit, lambda: list(net.parameters()))


def _loader(x: ndarray, y: ndarray, **options: Any) -> Any:
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), **options)


def lightning(x: ndarray, y: ndarray, first: list[ndarray], size: int | None) -> Peer:
    """Train by Lightning, barebones: no logging, checkpoints, progress bar or checks. The full batch is made once."""
    import torch
    from pytorch_lightning import LightningModule, Trainer
    from torch.utils.data import DataLoader

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch_net(first)

        def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
            x, y = batch
            return torch.nn.functional.mse_loss(self.net(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=RATE)

    warnings.simplefilter("ignore")
    logging.disable()
    module = Module()
    whole: Any = [(torch.from_numpy(x), torch.from_numpy(y))]  # a list will do for a Dataset
    loader = _loader(x, y, batch_size=size, shuffle=True) if size else DataLoader(whole, batch_size=None)
    return Peer(
        lambda epochs: Trainer(max_epochs=epochs, accelerator="cpu", barebones=True).fit(module, loader),
        lambda: list(module.parameters()),
    )


def skorch(x: ndarray, y: ndarray, first: list[ndarray], size: int | None) -> Peer:
    """Train by skorch, silent and without validation. The full batch is made once."""
    import torch
    from skorch import NeuralNetRegressor

    def whole(dataset: Any, **_: object) -> list[Any]:
        return [(dataset.X, dataset.y)]

    batches = {"batch_size": size, "iterator_train__shuffle": True} if size else {"iterator_train": whole}
    model = NeuralNetRegressor(torch_net(first), lr=RATE, train_split=None, verbose=0, **batches).initialize()
    points, targets = torch.from_numpy(x), torch.from_numpy(y)
    return Peer(
        lambda epochs: model.partial_fit(points, targets, epochs=epochs), lambda: list(model.module_.parameters())
    )


def sklearn(x: ndarray, y: ndarray, first: list[ndarray], size: int | None) -> Peer:
    """Train by MLPRegressor. Its loss is half the mean squared error, so its learning rate is twice the others'."""
    from sklearn.neural_network import MLPRegressor

    warnings.simplefilter("ignore")  # it finds that it has not converged
    options = {"solver": "sgd", "momentum": 0, "nesterovs_momentum": False, "alpha": 0, "shuffle": size is not None}
    endless = {"tol": 0, "n_iter_no_change": 10**9, "warm_start": True}
    model = MLPRegressor(
        hidden_layer_sizes=(10,), batch_size=1, learning_rate_init=1e-30, max_iter=1, **options, **endless
    )
    model.fit(x[:1], y[:1, 0])  # makes the parameters that are set here
    model.coefs_, model.intercepts_ = [first[0].T.copy(), first[2].T.copy()], [first[1], first[3]]
    model.set_params(batch_size=size or len(x), learning_rate_init=2 * RATE)
    return Peer(
        lambda epochs: model.set_params(max_iter=epochs).fit(x, y[:, 0]),
        lambda: [model.coefs_[0].T, model.intercepts_[0], model.coefs_[1].T, model.intercepts_[1]],
    )


def jax(x: ndarray, y: ndarray, first: list[ndarray], size: int | None) -> Peer:
    """Train by JAX: an epoch is one compiled function, a scan over its mini-batches, that reuses its parameters."""
    import jax
    import jax.numpy as jnp

    k, random = size or len(x), np.random.default_rng(0)
    x, y, parameters = jnp.asarray(x), jnp.asarray(y), [jnp.array(values) for values in first]

    def loss_of(parameters: list[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        weight, bias, out_weight, out_bias = parameters
        return jnp.mean((jax.nn.relu(x @ weight.T + bias) @ out_weight.T + out_bias - y) ** 2)

    def step(parameters: list[jax.Array], x: jax.Array, y: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, x, y)
        return jax.tree.map(lambda value, gradient: value - RATE * gradient, parameters, gradients), loss

    def shuffled(
        parameters: list[jax.Array], x: jax.Array, y: jax.Array, order: jax.Array
    ) -> tuple[list[jax.Array], jax.Array]:
        even, rest = order[: len(order) // k * k].reshape(-1, k), order[len(order) // k * k :]
        parameters, losses = jax.lax.scan(lambda values, rows: step(values, x[rows], y[rows]), parameters, even)
        return step(parameters, x[rest], y[rest]) if len(rest) else (parameters, losses[-1])

    epoch = jax.jit(shuffled if size else step, donate_argnums=0)

    def fit(epochs: int) -> None:
        nonlocal parameters
        for _ in range(epochs):
            order = [random.permutation(len(x)).astype(np.int32)] if size else []
            parameters, loss = epoch(parameters, x, y, *order)
        loss.block_until_ready()

    return Peer(fit, lambda: parameters)
