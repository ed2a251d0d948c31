"""Several networks of one kind, computed together; what they predict is the mean of their predictions."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from stages.folds import Folds
from stages.runtime.seeds import mixed

NETWORK = (1 << 31) + 1  # mixed into the seed for networks of their own: see SPLIT in folds.py
NO_ERRORS = (
    "needs a model that knows its errors in rows held back: set train.networks to 10 and train.validation_fraction to "
    "0.1, then run `dvc repro`"
)
MOST_NETWORKS = 1000
MOST_QUANTILES = 1000  # of the held-out errors, stored for each target
ROUNDING = 1e-9  # of a level times a number of quantiles

Each = Callable[[Tensor], Tensor]  # x, (networks, n, n_feature) or (n, n_feature), to (networks, n, n_output)

ELEMENTWISE = {  # functions that treat each value alone, so that it does not matter how many dimensions there are
    *(F.relu, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish, F.softplus, F.softsign),
    *(F.hardtanh, F.hardswish, F.hardsigmoid, F.logsigmoid, F.tanh, F.sigmoid, F.dropout, torch.relu, torch.tanh),
    *(torch.sigmoid, torch.exp, torch.sin, torch.cos, torch.square, Tensor.add, Tensor.mul, Tensor.sub),
}


def seeds_of(seed: int, networks: int) -> list[int]:
    """Return the seed of each network: of the first, the seed itself, as if it were the only one."""
    return [seed, *(mixed(seed, NETWORK, index) for index in range(1, networks))]


class Stack(nn.Module):
    """Networks side by side: one of them, whose parameters and buffers are the stacks of all, (networks, …)."""

    def __init__(self, nets: Sequence[nn.Module], n_feature: int) -> None:
        super().__init__()
        self.networks = len(nets)
        self.net = nets[0]
        for stacks in zip(*map(_tensors, nets), strict=True):
            stacks[0].data = torch.stack([values.detach() for values in stacks])
        self.batched = self._can_be_batched(n_feature)  # else it is computed by vmap, which is slower

    def forward(self, x: Tensor) -> Tensor:
        """Return the networks' predictions, (networks, n, n_output).

        x: (networks, n, n_feature), or (n, n_feature), the same for all networks.
        """
        if self.batched:
            with _Batched():
                return self.net(x.expand(self.networks, *x.shape[-2:]))
        tensors = dict(self.net.named_parameters()) | dict(self.net.named_buffers())
        of_one = torch.vmap(self._of_one, in_dims=(0, 0 if x.dim() == 3 else None), randomness="different")
        return of_one(tensors, x)

    def _of_one(self, tensors: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(self.net, tensors, (x,))

    def _can_be_batched(self, n_feature: int) -> bool:
        """Return whether the network is made of linear layers and elementwise functions, in either mode."""
        x = torch.zeros(self.networks, 1, n_feature)
        with torch.no_grad(), torch.random.fork_rng(devices=()), _Batched(_tensors(self.net)):
            try:
                for training in (False, True):
                    self.net.train(training)(x)
            except _UnknownFunctionError:
                return False
            finally:
                self.net.train()
        return True


class _UnknownFunctionError(Exception):
    """Batched tensors met a function that may treat them otherwise than those of one network."""


class _Batched(TorchFunctionMode):
    """Computes linear layers for all networks at once, from x, (networks, n, k).

    Given the stacked tensors, it raises _UnknownFunctionError where they meet any but linear layers, or x meets a
    function that may not be elementwise.
    """

    def __init__(self, stacked: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self.stacked = {id(tensor) for tensor in stacked}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.linear and not kwargs:
            x, weight, bias = (*args, None)[:3]  # (networks, n, k), (networks, m, k), (networks, m)
            # (networks, n, m)
            return x @ weight.mT if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)
        if self.stacked and (function not in ELEMENTWISE or any(id(argument) in self.stacked for argument in args)):
            raise _UnknownFunctionError(function)
        return function(*args, **(kwargs or {}))


def _tensors(net: nn.Module) -> list[Tensor]:
    return [*net.parameters(), *net.buffers()]


class Ensemble(nn.Module):
    """Networks that predict the mean of their predictions, and what is known of rows that they have not seen.

    `half_widths` are quantiles of the absolute errors of held-out predictions, ascending: see `quantiles`.
    """

    folds: Tensor  # int64 (3,): training rows, rows that each network held back, the seed that dealt them out
    half_widths: Tensor  # float32 (q, n_output), in the units of the table

    def __init__(self, networks: Stack, n_output: int, quantiles: int = 0) -> None:
        super().__init__()
        self.networks = networks
        self.register_buffer("folds", torch.zeros(3, dtype=torch.int64))
        self.register_buffer("half_widths", torch.zeros(quantiles, n_output))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean prediction, (n, n_output), for x, (n, n_feature)."""
        return self.networks(x).mean(dim=0)

    def held_back(self, classes: Tensor | None = None) -> Tensor:
        """Return the training rows that each network held back, int64 (networks, h), ascending; h may be 0.

        classes: int (n,), those of the training rows, if the target is a category.
        """
        rows, size, seed = self.folds.tolist()
        return Folds(rows, size, self.networks.networks, seed).held_back(classes)

    def half_width(self, level: float) -> Tensor:
        """Return the half-width of intervals around predictions, float32 (n_output,), in the units of the table.

        At least that share of the held-out errors is within it, counting one more row, the one to predict.
        Raises ValueError where there are none, or too few for this level.
        """
        quantiles = len(self.half_widths)
        number = math.ceil(level * (quantiles + 1) - ROUNDING)
        if not quantiles:
            raise ValueError(NO_ERRORS)
        if not 0 < number <= quantiles:
            most = math.floor(1000 * quantiles / (quantiles + 1)) / 1000
            raise ValueError(f"must be above 0 and at most {most:g}, by the number of rows held back, got {level:g}")
        return self.half_widths[number - 1]


def quantiles(errors: Tensor) -> Tensor:
    """Return at most MOST_QUANTILES quantiles of absolute errors, (n, n_output), evenly spread, rounded up.

    With n errors of rows like those to predict, the next error is at most the k-th smallest with a probability of
    k / (n + 1). Source: split conformal prediction (Lei et al. 2018, Distribution-Free Predictive Inference).
    """
    n = len(errors)
    count = min(n, MOST_QUANTILES)
    ranks = -(-torch.arange(1, count + 1) * (n + 1) // (count + 1))  # rounded up
    return errors.sort(dim=0).values[ranks - 1]


def networks_of(model: nn.Module) -> Stack | None:
    """Return the networks of a model that has several, None if it is one network."""
    return next((part for part in model.modules() if isinstance(part, Stack)), None)


def width(model: nn.Module) -> int:
    """Return how many values a point has on its way through a model: its features, and what each layer returns."""
    stack = networks_of(model)
    shapes = [values.shape[1 if stack else 0 :] for values in model.parameters()]  # without the networks' dimension
    shapes = [shape for shape in shapes if len(shape) > 1]  # of weights: (outputs, inputs)
    values = sum(shape[0] for shape in shapes) + (shapes[0][1] if shapes else 1)
    return values * (stack.networks if stack else 1)


def held_out(each: Each, x: Tensor, held_back: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return which rows of x, (n, n_feature), were held back, int64 (k,), and their predictions, (k, n_output).

    A row is predicted by the networks that held it back, and by their mean if there are several. held_back: int64
    (networks, h); rows: of each network, computed at a time.
    """
    sums: Tensor | None = None
    counts = torch.zeros(len(x))
    for some in held_back.split(rows, dim=1):
        predictions = each(x[some]).double().flatten(0, 1)  # (networks * rows, n_output)
        sums = torch.zeros(len(x), predictions.shape[1], dtype=torch.float64) if sums is None else sums
        sums.index_add_(0, some.flatten(), predictions)
        counts.index_add_(0, some.flatten(), torch.ones(some.numel()))
    known = counts.nonzero().flatten()
    assert sums is not None
    return known, (sums[known] / counts[known, None]).float()
