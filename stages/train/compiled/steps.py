"""Take many steps in one call, by the loop in this folder, checked against the steps of stages/train/loop.py."""

import copy
from collections.abc import Iterator, Sequence
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.runtime.errors import UserError
from stages.train.batches import Batch, Batches
from stages.train.compiled import library
from stages.train.compiled.library import Recipe
from stages.train.layers import Demands
from stages.train.loop import descend
from stages.train.parallel import on_all_ranks
from stages.train.steps import Taken

OPTIMIZERS = ["ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]
MOST_STEPS = 4096  # in a call of the library; micro-batches, if a batch has several
WORK = 1 << 30  # points times parameters in a call, at most: about a tenth of a second
CHECKED_STEPS = 8  # compared with eager ones before the training
TOLERANCE = 0.01  # of the distance that they travel; rounding causes about a thousandth of this difference
ROUNDING = 1e-6  # of the norm of the parameters, allowed besides
NO_DEMANDS = Demands()


class CompiledSteps:
    """Takes the steps of a training as EagerSteps does, many in one call.

    Raises UserError if this training cannot be compiled, or if compiled steps differ from eager ones.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        loss_function: nn.Module,
        batches: Batches,
        demands: Demands = NO_DEMANDS,
    ) -> None:
        _refuse(demands, optimizer, batches)
        self.net, self.optimizer, self.loss_function, self.batches = net, optimizer, loss_function, batches
        self.size = min(batches.size or len(batches.x), len(batches.x))  # points in a batch
        self.parts = -(-self.size // batches.micro_size)  # micro-batches in a batch, rounded up
        self.rows = -(-self.size // self.parts)  # points in a micro-batch
        parameters = sum(each.numel() for each in net.parameters() if each.requires_grad)
        self.most_steps = min(MOST_STEPS, max(1, WORK // (self.rows * parameters)))
        self.vectors: Vectors | None = None  # once the first step has created the optimizer's state
        self.tables: dict[int, list[Tensor]] = {}  # of `_tables`: the same in every epoch
        self._compile_and_check()
        # For a full batch the tables of as many epochs as fit in a call.
        self.full = [table.repeat(max(1, self.most_steps // self.parts), 1) for table in self._tables(self.size)]

    def take(self, position: tuple[int, int], epochs: int) -> Iterator[Taken]:
        """Take the remaining steps of an epoch; with a full batch, those of up to `epochs` epochs.

        The very first step is eager: it creates the optimizer's state.
        """
        batches, n = self.batches, len(self.batches.x)
        epoch, skip = position
        if epoch == skip == 0:
            batch = next(batches.epoch(0))
            yield Taken(self._eager(self.net, self.optimizer, [batch])[0], batch.fraction_of_epoch, steps=1)
            skip = 1
        self.vectors = self.vectors or Vectors(self.net, self.optimizer)
        if batches.size is None and skip == 0:
            tables = [table[: epochs * self.parts] for table in self.full]
            losses = self._take(self.vectors, self.optimizer, tables, batches.x, batches.y)
            yield Taken(losses[-1], 1.0, 1, earlier_epochs=losses[:-1])
        elif batches.size:
            for x, y in batches.picks(batches.size, epoch, skip):
                tables = self._tables(len(x))
                losses = self._take(self.vectors, self.optimizer, tables, x, y)
                counts = torch.full_like(losses, self.size)
                counts[-1] = len(x) - self.size * (len(losses) - 1)
                yield Taken(losses @ counts / len(x), len(x) / n, len(losses))

    def close(self) -> None:
        """Give the network's parameters memory of their own again."""
        for parameter in self.net.parameters():
            parameter.data = parameter.data.clone()

    def _tables(self, n: int) -> list[Tensor]:
        """Return the tables `steps` and `rates` of loop.py for n points, in batches of `size`.

        The last batch may be smaller. If a batch has several micro-batches, the n points are one batch.
        """
        if n in self.tables:
            return self.tables[n]
        first = torch.arange(0, n, self.rows)
        end = (first + self.rows).clamp(max=n)
        start = (end - self.rows).clamp(min=0)  # the last micro-batch begins among the points before it
        ends = torch.ones_like(first) if self.parts == 1 else end == n
        in_batch = end - first if self.parts == 1 else torch.full_like(first, n)
        weight = 1 / (in_batch.double() * self.batches.y.shape[1])
        steps = torch.stack([start, self.rows - (end - first), ends], 1)
        rates = torch.stack([torch.zeros_like(weight), weight], 1)
        return self.tables.setdefault(n, [steps, rates])

    def _take(self, vectors: "Vectors", optimizer: Optimizer, tables: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Take the steps in the tables with the points x and y; return the loss of each batch, (k,)."""
        group = optimizer.param_groups[0]
        if changed := [name for name, value in optimizer.defaults.items() if name != "lr" and group[name] != value]:
            raise UserError(
                f"params.yaml: kernels: compiled keeps the optimizer's {', '.join(changed)} constant: set "
                "cycle_momentum to false in train.schedule_options, or use native"
            )
        if (missing := self.rows - len(x)) > 0:  # a last batch alone: what is in front of its points is left out
            x, y = (F.pad(values, (0, 0, missing, 0)) for values in (x, y))
        steps, rates = tables
        rates[:, 0] = group["lr"]
        losses = torch.empty(len(steps))
        for some in zip(*(each.split(self.most_steps) for each in (losses, steps, rates)), strict=True):
            self.loop([some[0], *vectors.all, *some[1:], x, y])
        return losses[steps[:, 2] != 0]

    def _eager(self, net: nn.Module, optimizer: Optimizer, batches: Sequence[Batch]) -> list[Tensor]:
        """Take the steps as loop.py does; return their losses."""
        everywhere = on_all_ranks(net, self.loss_function, self.batches.ranks)
        return [loss for _, loss in descend(optimizer, batches, everywhere)]

    def _compile_and_check(self) -> None:
        """Find or make the library, and compare its steps with eager ones on copies, with the training's first batches.

        A batch of several micro-batches is cut to two of them.
        """
        few = min(self.size, 2 * self.rows)
        x, y = self.batches.x, self.batches.y
        if self.batches.size:
            x, y = next(self.batches.picks(self.batches.size, 0, 0))
        points = list(islice(cycle(zip(x.split(few), y.split(few), strict=True)), CHECKED_STEPS + 1))
        batches = [self.batches.share(*some) for some in points]

        net, optimizer = copy.deepcopy((self.net, self.optimizer))
        self._eager(net, optimizer, batches[:1])
        eager, eager_optimizer = copy.deepcopy((net, optimizer))
        vectors = Vectors(net, optimizer)
        widths = x.shape[1], y.shape[1]
        options = {name: value for name, value in optimizer.defaults.items() if name != "lr"}
        recipe = Recipe(
            self.net, self.loss_function, type(optimizer).__name__, options, vectors.scalars, self.rows, *widths
        )
        self.fingerprint = {"compiled library": recipe.key()}
        self.loop = library.load(recipe)

        start = vectors.parameters.clone()
        losses = torch.cat([self._take(vectors, optimizer, self._tables(len(some[0])), *some) for some in points[1:]])
        expected_losses = torch.stack(self._eager(eager, eager_optimizer, batches[1:]))
        expected = Vectors(eager, eager_optimizer).parameters
        allowed = TOLERANCE * (expected - start).norm() + ROUNDING * start.norm()
        fit = (vectors.parameters - expected).norm() <= allowed and losses.allclose(expected_losses, rtol=TOLERANCE)
        if expected.isfinite().all() and not fit:  # a loss that is not finite is reported later, as in any training
            raise UserError(
                f"params.yaml: kernels: compiled steps of {recipe.optimizer} differ from eager ones: use native"
            )


class Vectors:
    """Vectors of the parameters that learn and of each entry of the optimizer's state, which become views of them.

    What the optimizer keeps as a scalar for each parameter, such as the number of steps, becomes one scalar for all.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer) -> None:
        parameters = [each for each in net.parameters() if each.requires_grad]
        states = [optimizer.state[each] for each in parameters]
        names = [name for name, value in states[0].items() if isinstance(value, Tensor)]
        self.parameters, views = _joined([each.data for each in parameters])
        for parameter, view in zip(parameters, views, strict=True):
            parameter.data = view
        joined = {name: _joined([state[name] for state in states]) for name in names}
        for name, (_, views) in joined.items():
            for state, view in zip(states, views, strict=True):
                state[name] = view
        self.scalars = {name: vector.dim() == 0 for name, (vector, _) in joined.items()}
        gradient = torch.zeros(len(self.parameters) + 1)  # and the loss
        self.all = [gradient, self.parameters, *(vector for vector, _ in joined.values())]


def _joined(values: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the values in one vector, and their views of it; of scalars, the first, for all."""
    if all(each.dim() == 0 for each in values):
        return values[0], [values[0]] * len(values)
    vector = torch.cat([each.reshape(-1) for each in values])
    parts = vector.split([each.numel() for each in values])
    return vector, [part.view_as(each) for part, each in zip(parts, values, strict=True)]


def _refuse(demands: Demands, optimizer: Optimizer, batches: Batches) -> None:
    """Raise UserError for what cannot be compiled."""
    name, device = type(optimizer).__name__, batches.x.device.type
    why = ""
    if name not in OPTIMIZERS:
        why = f"with {name}: use native, or one of {', '.join(OPTIMIZERS)}"
    elif batches.ranks.size > 1:
        why = "in several ranks: use native, or start one rank"
    elif device != "cpu":
        why = f"on {device}: use native, or train.device: cpu"
    elif demands.whole_batches:
        why = f"a network with {', '.join(demands.whole_batches)}, which computes with whole batches: use native"
    elif demands.seeds:
        why = "a network that draws random numbers, as Dropout does: use native"
    if why:
        raise UserError(f"params.yaml: kernels: compiled cannot train {why}")
