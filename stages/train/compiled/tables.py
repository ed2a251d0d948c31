"""The tables that tell the compiled loop which points each of its steps takes."""

import torch
from torch import Tensor


def cut(n: int, rows: int, *, one_batch: bool) -> list[Tensor]:
    """Return the tables `steps` and `rates` of loop.py for n points, with learning rates of zero.

    The micro-batches have `rows` points, the last one fewer. Either all are one batch, or every one is a batch.
    """
    first = torch.arange(0, n, rows)
    end = (first + rows).clamp(max=n)
    start = (end - rows).clamp(min=0)  # the last micro-batch begins among the points before it
    ends = end == n if one_batch else torch.ones_like(first)
    in_batch = torch.full_like(first, n) if one_batch else end - first
    weight = 1 / in_batch.double()
    steps = torch.stack([start, rows - (end - first), ends], 1)
    return [steps, torch.stack([torch.zeros_like(weight), weight], 1)]
