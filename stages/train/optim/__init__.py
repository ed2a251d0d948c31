"""The optimizers and the learning-rate schedules of torch.optim, by name, with their options."""

from stages.train.optim.optimizer import OptimizerName, OptimizerOptions, new_optimizer, rehearse
from stages.train.optim.options import Options
from stages.train.optim.schedule import Schedule, ScheduleName, options_in_full

__all__ = [
    "OptimizerName",
    "OptimizerOptions",
    "Options",
    "Schedule",
    "ScheduleName",
    "new_optimizer",
    "options_in_full",
    "rehearse",
]
