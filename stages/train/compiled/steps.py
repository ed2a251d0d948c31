"""Take many steps in one call of a compiled library, checked against the steps of stages/train/loop.py."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stages.ensemble import Stack
from stages.runtime.errors import one_line
from stages.runtime.spread import evenly_spread
from stages.train import checkpoint
from stages.train.batches import Batches
from stages.train.compiled import library
from stages.train.compiled.calls import Calls, Rows
from stages.train.compiled.comparison import agree
from stages.train.compiled.graph import UnsupportedError
from stages.train.compiled.program import Recipe, write_header
from stages.train.compiled.vectors import Vectors, fixed_tensors, learning_tensors
from stages.train.layers import Demands
from stages.train.loop import descend
from stages.train.parallel import on_all_ranks
from stages.train.steps import NotCompiledError, Taken

OPTIMIZERS = ["ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]
MOST_STEPS = 4096  # in a call of the library
WORK = 1 << 32  # points times parameters in a call, at most: about a second
COMPARED_POINTS = 1024  # with eager steps
WIDE = 8.0  # compare also with this many times the first weights, where training may lead
FIRST_COMPARISON = 8  # steps after which to compare again; then four times as many, and so on


class CompiledSteps:
    """Takes the steps of a training as EagerSteps does, many in one call.

    Raises NotCompiledError if this training cannot be compiled, or if compiled steps differ from eager ones.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        loss_function: nn.Module,
        batches: Batches,
        demands: Demands,
        cores: int,
    ) -> None:
        _refuse(demands, optimizer, batches)
        self.net, self.optimizer, self.loss_function, self.batches = net, optimizer, loss_function, batches
        points = batches.points
        self.size = min(batches.size or points.n, points.n)  # points in a batch
        self.most_steps = min(MOST_STEPS, max(1, WORK // (self.size * sum(map(Tensor.numel, net.parameters())))))
        self.vectors: Vectors | None = None  # once the first step has created the optimizer's state
        self.compared_x = points.x[evenly_spread(len(points.x), COMPARED_POINTS)]
        self.whole: Tensor | None = None  # rows of each network's points, if they differ and all points are a batch
        if points.rows and batches.size is None:
            self.whole = torch.stack([points.rows.of(network) for network in range(len(batches.seeds))])
        self.taken, self.next_comparison = 0, FIRST_COMPARISON
        self._compile(cores)

    def take(self, position: tuple[int, int], epochs: int) -> Iterator[Taken]:
        """Take the remaining steps of an epoch; with a full batch, those of up to `epochs` epochs.

        The very first step is eager: it creates the optimizer's state.
        """
        batches, n, size = self.batches, self.batches.points.n, self.size
        epoch, skip = position
        if epoch == skip == 0:
            batch = next(batches.epoch(0))
            everywhere = on_all_ranks(self.net, self.loss_function, batches.ranks)
            ((_, loss),) = descend(self.optimizer, [batch], everywhere)
            yield Taken(loss, batch.fraction_of_epoch, steps=1)
            skip = 1
        if batches.size is None and skip == 0:
            losses = self._take(self.whole, 0, n, min(epochs, self.most_steps))
            yield Taken(losses[-1], 1.0, 1, earlier_epochs=losses[:-1])
        elif batches.size:
            order = batches.shuffled(epoch)
            for first in range(skip * size, n, self.most_steps * size):
                count = min(n - first, self.most_steps * size)
                losses = self._take(order, first, count, -(-count // size))
                counts = losses.new_full((len(losses),), size)
                counts[-1] = count - size * (len(losses) - 1)
                yield Taken(counts @ losses / count, count / n, len(losses))

    def close(self) -> None:
        """Compare once more, and give the network's parameters memory of their own again.

        Raises NotCompiledError if compiled steps differ from eager ones.
        """
        if self.vectors:
            self._compare()
        for parameter in self.net.parameters():
            parameter.data = parameter.data.clone()

    def _take(self, order: Tensor | None, first: int, n: int, steps: int) -> Tensor:
        """Take steps with n points, from the first on, in an order; return their losses, (steps,) or (steps, networks).

        Raises NotCompiledError if compiled steps differ from eager ones, or a schedule has changed what is compiled.
        """
        self.vectors = self.vectors or Vectors(self.net, self.optimizer, self.learning)
        if self.taken >= self.next_comparison:
            self._compare()
            self.next_comparison = 4 * self.taken
        _refuse_changed_options(self.optimizer)
        points, rate = self.batches.points, self.optimizer.param_groups[0]["lr"]
        losses = self.calls.take_steps(self.vectors, rate, Rows(points.x, points.y, order, first, n), self.size, steps)
        self.taken += steps
        return losses if isinstance(self.net, Stack) else losses[:, 0]

    def _compile(self, cores: int) -> None:
        """Load or compile the library, and compare its steps with eager ones; if a kept one differs, compile again."""
        net, optimizer = copy.deepcopy((self.net, self.optimizer))
        few = slice(2)
        losses = self.loss_function(net(self.batches.points.x[few]), self.batches.points.y[few])
        losses.sum().backward()
        optimizer.step()
        self.learning = tuple(name for name, values in net.named_parameters() if values.grad is not None)
        header = self._header(Vectors(net, optimizer, self.learning))
        for _ in range(2):  # a kept library may be wrong: then a new one gets a chance
            compiled = library.load(header)
            self.compiled, self.calls = compiled, Calls(compiled.functions, cores)
            if self._agrees(net, optimizer, 1, WIDE):
                break
            compiled.discard()
            if compiled.is_new:
                raise self._differs()
        else:  # the kept one cannot be deleted
            raise self._differs()
        self.fingerprint = {"compiled library": compiled.made_from}

    def _header(self, vectors: Vectors) -> str:
        """Return the code for one of the networks. Raises NotCompiledError if it cannot be written."""
        net, points, name = self.net, self.batches.points, type(self.optimizer).__name__
        learning, fixed = learning_tensors(net, self.learning), fixed_tensors(net, self.learning)
        if isinstance(net, Stack):
            net, learning, fixed = net.net, _of_the_first(learning), _of_the_first(fixed)
        options = {name: value for name, value in self.optimizer.defaults.items() if name != "lr"}
        widths = points.x.shape[1], points.y.shape[1]
        try:
            return write_header(
                Recipe(net, learning, fixed, self.loss_function, name, options, vectors.is_scalar, *widths)
            )
        except UnsupportedError as error:
            why = f"cannot train this network with {name}, since it computes {error}"
            raise NotCompiledError(why, "use eager") from error
        except Exception as error:  # a network may stumble over a single point in any way
            why = f"cannot train this network, which fails with a single point: {one_line(error)}"
            raise NotCompiledError(why, "use eager") from error

    def _compare(self) -> None:
        """Compare compiled steps with eager ones from where the training is.

        Raises NotCompiledError if they differ; the library and the checkpoint are deleted, then.
        """
        _refuse_changed_options(self.optimizer)
        if not self._agrees(self.net, self.optimizer, 1):
            checkpoint.discard()
            self.compiled.discard()
            raise self._differs()

    def _agrees(self, net: nn.Module, optimizer: Optimizer, *scales: float) -> bool:
        """Return whether the library does what eager steps do, near the net's parameters times each of the scales."""
        training = net, optimizer, self.loss_function, self.learning, self.compared_x
        return all(agree(self.calls, *training, scale=scale) for scale in scales)

    def _differs(self) -> NotCompiledError:
        return NotCompiledError(f"of {type(self.optimizer).__name__} differ from eager ones", "use eager")


def _of_the_first(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the first network's tensors of those of a Stack."""
    return {name.removeprefix("net."): values[0] for name, values in tensors.items()}


def _refuse_changed_options(optimizer: Optimizer) -> None:
    """Raise NotCompiledError if a schedule has changed more than the learning rate, since all else is compiled."""
    group = optimizer.param_groups[0]
    if changed := [name for name, value in optimizer.defaults.items() if name != "lr" and group[name] != value]:
        cure = "set cycle_momentum to false in train.schedule_options, or use eager"
        raise NotCompiledError(f"keep the optimizer's {', '.join(changed)} constant", cure)


def _refuse(demands: Demands, optimizer: Optimizer, batches: Batches) -> None:
    """Raise NotCompiledError for what cannot be compiled."""
    name, device = type(optimizer).__name__, batches.points.x.device.type
    if name not in OPTIMIZERS:
        raise NotCompiledError(f"cannot train with {name}", f"use eager, or one of {', '.join(OPTIMIZERS)}")
    if batches.ranks.size > 1:
        raise NotCompiledError("cannot train in several ranks", "use eager, or start one rank")
    if device != "cpu":
        raise NotCompiledError(f"cannot train on {device}", "use eager, or train.device: cpu")
    if demands.whole_batches:
        layers = ", ".join(demands.whole_batches)
        raise NotCompiledError(f"cannot train a network with {layers}, which computes with whole batches", "use eager")
    if demands.seeds:
        raise NotCompiledError("cannot train a network that draws random numbers, as Dropout does", "use eager")
    _refuse_changed_options(optimizer)
