"""Train a network: its epochs, and what happens between them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from stages.train.batches import Batches, keep_freed_memory
from stages.train.checkpoint import Checkpoint
from stages.train.choice import choose_steps
from stages.train.layers import Demands
from stages.train.loop import Everywhere
from stages.train.loss import new_loss
from stages.train.optim import Schedule, new_optimizer, rehearse
from stages.train.parallel import enough_cores, on_all_ranks
from stages.train.progress import progress
from stages.train.record import Record, mean_and_spread
from stages.train.settings import Train
from stages.train.steps import EagerSteps, Steps
from stages.train.validation import Validation, mean_loss

NO_DEMANDS = Demands()


class Trained(NamedTuple):
    """What is known of a training besides its record."""

    lowest: list[float]  # each network's lowest validation loss, if points were held back
    choice: str  # which steps were taken and why with train.steps: auto, else ""


def train(
    net: nn.Module,
    batches: Batches,
    held_back: Batches | None,
    settings: Train,
    record: Record,
    checkpoint: Checkpoint,
    demands: Demands = NO_DEMANDS,
) -> Trained:
    """Train the network in place, and record how it learns.

    If points are held back, each network ends with the weights that had the lowest loss there.
    Raises UserError if the optimizer, the schedule or the steps cannot train as set, a loss is not finite, or the user
    asks to stop.
    """
    keep_freed_memory()
    loss_function = new_loss(settings.loss, several=settings.networks > 1)
    everywhere = on_all_ranks(net, loss_function, batches.ranks)
    training = prepare(net, batches, held_back, settings, loss_function, record)
    parameters = sum(map(Tensor.numel, net.parameters()))
    with enough_cores(net, batches) as cores:

        def compiled() -> Steps:
            from stages.train.compiled import CompiledSteps  # imported late: eager steps do not need it

            return CompiledSteps(net, training.optimizer, loss_function, batches, demands, cores)

        eager = EagerSteps(training.optimizer, batches, everywhere, seeded=demands.seeds)
        steps, choice = choose_steps(settings, batches, parameters, eager, compiled)
        checkpoint.fingerprint |= steps.fingerprint
        checkpoint.restore(training.parts())
        with progress(record, checkpoint, training.parts()) as after_step:
            while record.epoch < settings.epochs and not training.patience_is_over():
                training.begin_epoch()
                for taken in steps.take(record.position, training.epochs_without_pause()):
                    if taken.earlier_epochs is not None:
                        record.add_epochs(taken.earlier_epochs)
                    record.add(taken.loss, taken.fraction, taken.steps)
                    after_step()
                training.end_epoch(everywhere)
        steps.close()
        if training.validation:
            training.validation.restore_best()
        record.end(net, everywhere(mean_loss, batches.share_of_all))  # the network as it is saved
    return Trained(training.validation.lowest if training.validation else [], choice)


@dataclass
class Training:
    """What changes as the network learns, and what happens to it between epochs."""

    net: nn.Module
    optimizer: Optimizer
    record: Record
    schedule: Schedule | None
    validation: Validation | None

    def parts(self) -> dict[str, Any]:
        """Return what a checkpoint holds, by name."""
        parts = {"net": self.net, "optimizer": self.optimizer, "record": self.record}
        parts |= {"schedule": self.schedule, "validation": self.validation}
        return {name: part for name, part in parts.items() if part is not None}

    def epochs_without_pause(self) -> int:
        """Return for how many epochs there is nothing to do between them but to count them."""
        return 1 if self.schedule or self.validation else self.record.epochs_to_snapshot()

    def begin_epoch(self) -> None:
        """Take a snapshot if one is due. Raises UserError if the schedule has set an impossible learning rate."""
        self.record.snap(self.net)
        if self.schedule:
            self.schedule.ensure_possible_rate()

    def end_epoch(self, everywhere: Everywhere) -> None:
        """Measure the validation loss, set the next learning rate, and record both with the epoch's loss."""
        columns: dict[str, float] = {}  # of loss.csv, besides the loss
        if self.validation:
            losses = self.validation.measure(everywhere, self.record.epoch)
            columns |= {name: value for name, [value] in mean_and_spread("validation_loss", losses[None]).items()}
        if self.schedule or self.validation:
            columns["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        if self.schedule:
            self.schedule.step(columns.get("validation_loss", self.record.epoch_loss))
        self.record.end_epoch(columns)

    def patience_is_over(self) -> bool:
        """Return whether training stops early."""
        return self.validation is not None and self.validation.patience_is_over()


def prepare(
    net: nn.Module,
    batches: Batches,
    held_back: Batches | None,
    settings: Train,
    loss_function: nn.Module,
    record: Record,
) -> Training:
    """Return what the training starts from, after a rehearsal of the optimizer and the schedule on a copy."""
    arguments = settings.optimizer, net, settings.learning_rate, settings.optimizer_options.given()
    spare = rehearse(*arguments, lambda *both: loss_function(*both).sum(), batches.points.x[:2], batches.points.y[:2])
    optimizer = new_optimizer(*arguments)
    schedule = validation = None
    if settings.schedule:
        plan = settings.schedule, settings.schedule_options_in_full()
        Schedule(*plan, spare).rehearse(settings.epochs)
        schedule = Schedule(*plan, optimizer)
    if held_back:
        validation = Validation(net, held_back.share_of_all, settings.patience, settings.networks)
    return Training(net, optimizer, record, schedule, validation)
