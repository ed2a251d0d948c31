"""Choose how a training takes its steps."""

import math
from collections.abc import Callable

from stages.train.batches import Batches
from stages.train.settings import Train
from stages.train.steps import NotCompiledError, Steps

SECONDS_A_STEP, SECONDS_A_VALUE = 3e-4, 1e-9  # of an eager step; in addition, for each point times each parameter
WORTH_COMPILING = 5.0  # seconds of eager steps; compiling takes about half a second


def choose_steps(
    settings: Train, batches: Batches, parameters: int, eager: Steps, compiled: Callable[[], Steps]
) -> tuple[Steps, str]:
    """Return the steps that the params ask for; for `auto`, compiled ones where they are possible and save time.

    Also return which and why with `auto`, else "". parameters: how many numbers learn; compiled: returns the steps, or
    raises NotCompiledError.
    """
    if settings.steps == "eager":
        return eager, ""
    if settings.steps == "compiled":
        return compiled(), ""
    n = batches.points.n
    seconds = settings.epochs * (math.ceil(n / (batches.size or n)) * SECONDS_A_STEP + n * parameters * SECONDS_A_VALUE)
    if seconds < WORTH_COMPILING:
        return eager, f"eager steps, since they take only about {seconds:.1g} s"
    try:
        return compiled(), "compiled steps"
    except NotCompiledError as error:
        return eager, f"eager steps, since compiled steps {error.why}"
