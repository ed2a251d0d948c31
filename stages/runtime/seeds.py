"""Seeds of different things, drawn from one seed."""

import numpy as np


def mixed(*numbers: int) -> int:
    """Return a 32-bit seed mixed from the numbers; torch's CPU generator reads no more bits than that."""
    return np.random.SeedSequence(numbers).generate_state(1).item()
