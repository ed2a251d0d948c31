"""Take many steps in one call, by the loop in this folder, checked against the steps of stages/train/loop.py."""

import copy
from collections.abc import Iterator, Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.runtime.errors import UserError
from stages.runtime.spread import evenly_spread
from stages.train import checkpoint
from stages.train.batches import Batch, Batches
from stages.train.compiled import library
from stages.train.compiled.comparison import agree
from stages.train.compiled.recipe import Recipe, dimension_of_networks
from stages.train.compiled.tables import cut
from stages.train.compiled.vectors import Vectors
from stages.train.layers import Demands
from stages.train.loop import descend
from stages.train.parallel import on_all_ranks
from stages.train.steps import Taken

OPTIMIZERS = ["ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]
MOST_STEPS = 4096  # in a call of the library; micro-batches, if a batch has several
WORK = 1 << 30  # points times parameters in a call, at most: about a tenth of a second
COMPARED_POINTS = 1024  # with eager steps; more if that is less than two micro-batches
WIDE = 8.0  # compare also with this many times the first weights, where training may lead
FIRST_COMPARISON = 8  # steps after which to compare again; then four times as many, and so on
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
        points = batches.points
        # (networks,) if several learn from different points: the dimensions of x and y before (n, …).
        self.leading = dimension_of_networks(net) if batches.size or points.rows else ()
        self.size = min(batches.size or points.n, points.n)  # points in a batch
        self.parts = -(-self.size // batches.micro_size)  # micro-batches in a batch, rounded up
        self.rows = -(-self.size // self.parts)  # points in a micro-batch
        self.most_steps = min(MOST_STEPS, max(1, WORK // (self.rows * sum(map(Tensor.numel, net.parameters())))))
        self.whole: tuple[Tensor, Tensor] | None = None  # all points, if they are computed together
        self.vectors: Vectors | None = None  # once the first step has created the optimizer's state
        self.tables: dict[int, list[Tensor]] = {}  # by number of points, made once: they are the same in every epoch
        n = min(points.n, max(2 * self.rows, min(COMPARED_POINTS, batches.micro_size)))
        x, _ = points.at(torch.tensor(evenly_spread(points.n, n)))
        self.compared_x = x.expand(*self.leading, *x.shape[-2:]).contiguous()
        self.taken, self.next_comparison = 0, FIRST_COMPARISON
        self._compile()
        # For a full batch the tables of as many epochs as fit in a call.
        self.full = [table.repeat(max(1, self.most_steps // self.parts), 1) for table in self._tables(self.size)]

    def take(self, position: tuple[int, int], epochs: int) -> Iterator[Taken]:
        """Take the remaining steps of an epoch; with a full batch, those of up to `epochs` epochs.

        The very first step is eager: it creates the optimizer's state.
        """
        batches, n = self.batches, self.batches.points.n
        epoch, skip = position
        if epoch == skip == 0:
            batch = next(batches.epoch(0))
            yield Taken(self._eager(self.net, self.optimizer, [batch])[0], batch.fraction_of_epoch, steps=1)
            skip = 1
        self.vectors = self.vectors or Vectors(self.net, self.optimizer, self.learning)
        if batches.size is None and skip == 0:
            for tables, x, y in self._full_batches(epochs):
                losses = self._take(self.vectors, self.optimizer, tables, x, y)
            yield Taken(losses[-1], 1.0, 1, earlier_epochs=losses[:-1])
        elif batches.size:
            for x, y in batches.picks(batches.size, epoch, skip):
                tables = self._tables(x.shape[-2])
                losses = self._take(self.vectors, self.optimizer, tables, x, y)
                counts = losses.new_full((len(losses),), self.size)
                counts[-1] = x.shape[-2] - self.size * (len(losses) - 1)
                yield Taken(counts @ losses / x.shape[-2], x.shape[-2] / n, len(losses))

    def close(self) -> None:
        """Compare once more, and give the network's parameters memory of their own again.

        Raises UserError if compiled steps differ from eager ones.
        """
        if self.vectors:
            self._compare()
        for parameter in self.net.parameters():
            parameter.data = parameter.data.clone()

    def _full_batches(self, epochs: int) -> Iterator[tuple[list[Tensor], Tensor, Tensor]]:
        """Yield tables, x and y of up to `epochs` epochs of a full batch.

        Where networks learn from different points, these are copied: once, if they are a single micro-batch, else one
        micro-batch at a time, for one epoch.
        """
        points = self.batches.points
        if not points.rows or self.parts == 1:
            self.whole = self.whole or points.at(slice(0, points.n))
            yield [table[: epochs * self.parts] for table in self.full], *self.whole
            return
        for steps, rates in zip(*(table.split(1) for table in self._tables(self.size)), strict=True):
            first = int(steps[0, 0])
            x, y = points.at(slice(first, first + self.rows))
            yield [steps - torch.tensor([first, 0, 0]), rates], x, y

    def _tables(self, n: int) -> list[Tensor]:
        """Return the tables `steps` and `rates` of loop.py for n points, in batches of `size`.

        The last batch may be smaller. If a batch has several micro-batches, the n points are one batch.
        """
        if n not in self.tables:
            self.tables[n] = cut(n, self.rows, one_batch=self.parts > 1)
        return self.tables[n]

    def _take(self, vectors: Vectors, optimizer: Optimizer, tables: Sequence[Tensor], x: Tensor, y: Tensor) -> Tensor:
        """Take the steps in the tables with the points x and y; return the loss of each batch, (k,) or (k, networks).

        Raises UserError if compiled steps differ from eager ones, or if a schedule has changed what is compiled.
        """
        if self.taken >= self.next_comparison:
            self._compare()
            self.next_comparison = 4 * self.taken
        _refuse_changed_options(optimizer)
        x, y = (_filled_up(values, self.rows) for values in (x, y))
        steps, rates = tables
        rates[:, 0] = optimizer.param_groups[0]["lr"]
        losses = torch.empty(len(steps), *vectors.each)
        for some in zip(*(table.split(self.most_steps) for table in (losses, steps, rates)), strict=True):
            self.compiled.run([some[0], *vectors.all, *some[1:], x, y])
        self.taken += len(steps)
        return losses[steps[:, 2] != 0]

    def _eager(self, net: nn.Module, optimizer: Optimizer, batches: Sequence[Batch]) -> list[Tensor]:
        """Take the steps as loop.py does; return their losses."""
        everywhere = on_all_ranks(net, self.loss_function, self.batches.ranks)
        return [loss for _, loss in descend(optimizer, batches, everywhere)]

    def _compile(self) -> None:
        """Load or compile the library, and compare its steps with eager ones; if a kept one differs, compile again."""
        net, optimizer = copy.deepcopy((self.net, self.optimizer))
        few = slice(min(self.size, self.rows))
        self._eager(net, optimizer, [self.batches.share(self.batches.points.x[few], self.batches.points.y[few])])
        self.learning = tuple(name for name, values in net.named_parameters() if values.grad is not None)
        vectors = Vectors(net, optimizer, self.learning)
        widths = self.batches.points.x.shape[1], self.batches.points.y.shape[1]
        options = {name: value for name, value in optimizer.defaults.items() if name != "lr"}
        name = type(optimizer).__name__
        training = self.net, self.learning, self.loss_function, name, options
        recipe = Recipe(*training, vectors.scalars, self.rows, *widths, self.leading)
        self.compiled = library.load(recipe)
        if not self._agrees(net, optimizer, 1, WIDE) and not self.compiled.is_new:
            self.compiled.discard()
            self.compiled = library.load(recipe)
        if not self._agrees(net, optimizer, 1, WIDE):
            self._refuse_library()
        self.fingerprint = {"compiled library": self.compiled.made_from}

    def _compare(self) -> None:
        """Compare compiled steps with eager ones from where the training is.

        Raises UserError if they differ; the library and the checkpoint are deleted, then.
        """
        _refuse_changed_options(self.optimizer)
        if not self._agrees(self.net, self.optimizer, 1):
            checkpoint.discard()
            self._refuse_library()

    def _agrees(self, net: nn.Module, optimizer: Optimizer, *scales: float) -> bool:
        """Return whether the library does what eager steps do, near the net's parameters times each of the scales."""
        training = net, optimizer, self.loss_function, self.learning
        return all(agree(self.compiled.run, *training, self.compared_x, self.rows, scale=scale) for scale in scales)

    def _refuse_library(self) -> NoReturn:
        self.compiled.discard()
        name = type(self.optimizer).__name__
        raise UserError(f"params.yaml: train.steps: compiled steps of {name} differ from eager ones: use eager")


def _filled_up(values: Tensor, rows: int) -> Tensor:
    """Return the points of a last batch on its own, after others, which the tables leave out, if they are too few."""
    missing = rows - values.shape[-2]
    if missing <= 0:
        return values
    return torch.cat([values[..., :1, :].expand(*values.shape[:-2], missing, -1), values], dim=-2)


def _refuse_changed_options(optimizer: Optimizer) -> None:
    """Raise UserError if a schedule has changed more than the learning rate, since all else is compiled."""
    group = optimizer.param_groups[0]
    if changed := [name for name, value in optimizer.defaults.items() if name != "lr" and group[name] != value]:
        raise UserError(
            f"params.yaml: train.steps: compiled keeps the optimizer's {', '.join(changed)} constant: set "
            "cycle_momentum to false in train.schedule_options, or use eager"
        )


def _refuse(demands: Demands, optimizer: Optimizer, batches: Batches) -> None:
    """Raise UserError for what cannot be compiled."""
    name, device = type(optimizer).__name__, batches.points.x.device.type
    why = ""
    if name not in OPTIMIZERS:
        why = f"with {name}: use eager, or one of {', '.join(OPTIMIZERS)}"
    elif batches.ranks.size > 1:
        why = "in several ranks: use eager, or start one rank"
    elif device != "cpu":
        why = f"on {device}: use eager, or train.device: cpu"
    elif demands.whole_batches:
        why = f"a network with {', '.join(demands.whole_batches)}, which computes with whole batches: use eager"
    elif demands.seeds:
        why = "a network that draws random numbers, as Dropout does: use eager"
    if why:
        raise UserError(f"params.yaml: train.steps: compiled cannot train {why}")
