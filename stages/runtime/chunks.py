"""How many rows to compute with at a time."""

FITTING_VALUES = 3 << 18  # float32 values that fit a CPU's caches: 3 MiB


def rows_at_a_time(width: int, values: int = FITTING_VALUES) -> int:
    """Return how many rows are fastest to compute with at a time; `width` is a row's values: inputs, hidden, outputs.

    For the lesson's network that is 65,536 points.
    """
    return max(1, values // width)
