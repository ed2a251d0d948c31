"""Train a network: its epochs, and what happens between them."""

from typing import Any

from torch import nn

from stages.train import layers
from stages.train.batches import Batches, keep_freed_memory
from stages.train.checkpoint import Checkpoint
from stages.train.loop import descend
from stages.train.optimizer import new_optimizer, rehearse
from stages.train.parallel import workers
from stages.train.progress import progress
from stages.train.record import Record
from stages.train.schedule import Schedule
from stages.train.settings import Train
from stages.train.validation import Validation, mean_loss


def train(
    net: nn.Module, batches: Batches, held_back: Batches | None, settings: Train, checkpoint: Checkpoint
) -> Record:
    """Train the network in place and return how it learned.

    If points are held back, the network ends with the weights that had the lowest loss there.
    Raises UserError if the layers, the optimizer or the schedule cannot train as set, a loss is not finite, or the user
    asks to stop.
    """
    keep_freed_memory()
    loss_function = getattr(nn, settings.loss)()
    recipe = settings.optimizer, net, settings.learning_rate, settings.optimizer_options.given()
    few_x, few_y = batches.x[:2], batches.y[:2]
    spare = rehearse(*recipe, loss_function, few_x, few_y)
    random = layers.draws_random_numbers(net, few_x)
    optimizer = new_optimizer(*recipe)
    record = Record(batches.x, batches.y, settings.epochs, settings.snapshot_every)
    state: dict[str, Any] = {"net": net, "optimizer": optimizer, "record": record}
    schedule = validation = None
    if settings.schedule:
        plan = settings.schedule, settings.schedule_options_in_full()
        Schedule(*plan, spare).rehearse(settings.epochs)
        schedule = state["schedule"] = Schedule(*plan, optimizer)
    del spare  # it holds a copy of the network
    if held_back:
        validation = state["validation"] = Validation(net, held_back.full, settings.patience)
    checkpoint.restore(**state)
    with workers(net, loss_function, batches, in_turn=random) as everywhere:
        with progress(checkpoint=checkpoint, **state) as after_step:
            while record.epoch < settings.epochs and not (validation and validation.patience_is_over()):
                record.snap(net)
                epoch = batches.epoch(record.epoch, skip=record.steps, seeded=random)
                for batch, loss in descend(optimizer, epoch, everywhere):
                    record.add(loss, batch.weight)
                    after_step()
                values: dict[str, float] = {}  # in other columns of loss.csv
                if validation:
                    values["validation_loss"] = validation.measure(everywhere, record.epoch)
                if validation or schedule:
                    values["learning_rate"] = optimizer.param_groups[0]["lr"]
                if schedule:
                    schedule.step(values.get("validation_loss", record.epoch_loss))
                record.end_epoch(**values)
        record.end(net, everywhere(mean_loss, batches.full))
    if validation:
        validation.restore_best()
    return record
