"""The schedules of the learning rate in torch.optim.lr_scheduler, by name, stepped once an epoch."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, SupportsFloat

from torch.optim import Optimizer, lr_scheduler

from stages.runtime.errors import UserError, one_line

ScheduleName = Literal[
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "StepLR",
]
MAX_REHEARSED = 100_000  # epochs, which take half a second at most


class Schedule:
    """Sets the learning rate of an optimizer after each epoch. Raises UserError, as its steps do, if torch refuses."""

    def __init__(self, name: ScheduleName, options: dict[str, Any], optimizer: Optimizer) -> None:
        self.name, self.options = name, options
        with self._refusal():
            self.scheduler = getattr(lr_scheduler, name)(optimizer, **options)

    def rehearse(self, epochs: int) -> None:
        """Step through that many epochs, at most MAX_REHEARSED, to find out now whether one will be refused."""
        for _ in range(min(epochs, MAX_REHEARSED)):
            self.ensure_possible_rate()
            self.step(1.0)  # any loss will do

    def step(self, loss: SupportsFloat) -> None:
        """Set the learning rate of the next epoch; `loss` is that of the last epoch, which ReduceLROnPlateau needs."""
        with self._refusal(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resumed training has taken no step of the optimizer yet
            if isinstance(self.scheduler, lr_scheduler.ReduceLROnPlateau):
                self.scheduler.step(loss)
            else:
                self.scheduler.step()

    def ensure_possible_rate(self) -> None:
        """Raise UserError unless the learning rate of the epoch that begins is finite and at least 0."""
        with self._refusal():
            for group in self.scheduler.optimizer.param_groups:
                if not 0 <= group["lr"] < math.inf:
                    raise ValueError(f"it sets a learning rate of {group['lr']:g}")

    def state_dict(self) -> dict[str, Any]:
        """Return the state for `load_state_dict`."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned. Raises ValueError if it is that of another schedule."""
        if state.keys() != self.state_dict().keys():
            raise ValueError("must have the keys of this schedule")
        self.scheduler.load_state_dict(state)

    @contextmanager
    def _refusal(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each schedule refuses in its own way
            why = f"{self.name} with options {self.options} cannot be used: {one_line(error)}"
            raise UserError(f"params.yaml: train.schedule: {why}") from error


def options_in_full(
    name: ScheduleName | None, options: dict[str, Any], epochs: int, learning_rate: float
) -> dict[str, Any]:
    """Return the options and those that follow from other params: the number of epochs, the highest learning rate."""
    implied: dict[str | None, dict[str, Any]] = {
        "CosineAnnealingLR": {"T_max": epochs},
        "CyclicLR": {"max_lr": learning_rate},
        "OneCycleLR": {"max_lr": learning_rate, "epochs": epochs, "steps_per_epoch": 1},
        "PolynomialLR": {"total_iters": epochs},
    }
    return implied.get(name, {}) | options
