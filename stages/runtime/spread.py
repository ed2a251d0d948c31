"""Choose some of many rows or pictures."""


def evenly_spread(n: int, at_most: int) -> list[int]:
    """Return at most `at_most` of n indices, evenly spread, in order, the first and the last among them."""
    k = min(n, at_most)
    return [index * (n - 1) // max(k - 1, 1) for index in range(k)]
