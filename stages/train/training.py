"""Train a network: its epochs, and what happens between them."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from stages.train import layers
from stages.train.batches import Batches, keep_freed_memory
from stages.train.checkpoint import Checkpoint
from stages.train.loop import Everywhere, descend
from stages.train.optim import Schedule, new_optimizer, rehearse
from stages.train.parallel import enough_cores, on_all_ranks
from stages.train.progress import progress
from stages.train.record import Record
from stages.train.settings import Train
from stages.train.validation import Validation, mean_loss


def train(
    net: nn.Module,
    batches: Batches,
    held_back: Batches | None,
    settings: Train,
    checkpoint: Checkpoint,
    *,
    compiled: bool = False,
) -> Record:
    """Train the network in place, with compiled steps or eager ones, and return how it learned.

    If points are held back, the network ends with the weights that had the lowest loss there.
    Raises UserError if the layers, the optimizer or the schedule cannot train as set, a loss is not finite, or the user
    asks to stop.
    """
    keep_freed_memory()
    loss_function = getattr(nn, settings.loss)()
    training = prepare(net, batches, held_back, settings, loss_function)
    record, optimizer = training.record, training.optimizer
    everywhere = on_all_ranks(net, loss_function, batches.ranks)
    random = layers.draws_random_numbers(net, batches.x[:2])
    with enough_cores(net, batches):
        steps = None
        if compiled:
            from stages.train.compiled import CompiledSteps  # here, since only this training needs what it imports

            steps = CompiledSteps(net, optimizer, loss_function, batches)
        checkpoint.restore(**training.state())
        with progress(checkpoint=checkpoint, **training.state()) as after_step:
            while record.epoch < settings.epochs and not training.patience_is_over():
                record.snap(net)
                if steps:
                    epochs = 1 if training.acts_between_epochs() else record.epochs_to_snapshot()
                    for losses, weight, count in steps.descend(*record.position, epochs):
                        record.add(losses, weight, count)
                        after_step()
                else:
                    epoch = batches.epoch(record.epoch, skip=record.steps, seeded=random)
                    for batch, loss in descend(optimizer, epoch, everywhere):
                        record.add(loss, batch.weight)
                        after_step()
                training.end_epoch(everywhere)
        if training.validation:
            training.validation.restore_best()
        record.end(net, everywhere(mean_loss, batches.full))  # the network as it is saved
    if steps:
        steps.close()
    return record


@dataclass
class Training:
    """What a checkpoint holds: all that changes as the network learns."""

    net: nn.Module
    optimizer: Optimizer
    record: Record
    schedule: Schedule | None
    validation: Validation | None

    def state(self) -> dict[str, Any]:
        """Return its parts by name, those that this training has."""
        return {name: part for name, part in vars(self).items() if part is not None}

    def acts_between_epochs(self) -> bool:
        """Return whether `end_epoch` does more than count."""
        return bool(self.schedule or self.validation)

    def end_epoch(self, everywhere: Everywhere) -> None:
        """Measure the validation loss, set the next learning rate, and record both with the epoch's loss."""
        values: dict[str, float] = {}  # in other columns of loss.csv
        if self.validation:
            values["validation_loss"] = self.validation.measure(everywhere, self.record.epoch)
        if self.acts_between_epochs():
            values["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        if self.schedule:
            self.schedule.step(values.get("validation_loss", self.record.epoch_loss))
        self.record.end_epoch(**values)

    def patience_is_over(self) -> bool:
        """Return whether training stops early."""
        return self.validation is not None and self.validation.patience_is_over()


def prepare(
    net: nn.Module, batches: Batches, held_back: Batches | None, settings: Train, loss_function: nn.Module
) -> Training:
    """Return what the training starts from, after a rehearsal of the optimizer and the schedule on a copy."""
    arguments = settings.optimizer, net, settings.learning_rate, settings.optimizer_options.given()
    spare = rehearse(*arguments, loss_function, batches.x[:2], batches.y[:2])
    optimizer = new_optimizer(*arguments)
    record = Record(batches.x, batches.y, settings.epochs, settings.snapshot_every)
    schedule = validation = None
    if settings.schedule:
        plan = settings.schedule, settings.schedule_options_in_full()
        Schedule(*plan, spare).rehearse(settings.epochs)
        schedule = Schedule(*plan, optimizer)
    if held_back:
        validation = Validation(net, held_back.full, settings.patience)
    return Training(net, optimizer, record, schedule, validation)
