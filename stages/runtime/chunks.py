"""How much to compute with at a time."""

FITTING_VALUES = 3 << 18  # float32 values that fit a CPU's caches: 3 MiB


def rows_at_a_time(width: int, values: int = FITTING_VALUES) -> int:
    """Return how many rows of so many values, inputs, hidden and outputs, are fastest to compute with at a time.

    Of the lesson's network, 65,536 points fit a CPU's caches.
    """
    return max(1, values // width)
