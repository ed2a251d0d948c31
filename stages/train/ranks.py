"""The processes that train together: one, or as many as a launcher such as torchrun has started."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from stages.errors import UserError


class Ranks(NamedTuple):
    """The number of this process, `rank`, among `size` that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # through which they exchange tensors

    def share(self, n: int) -> slice:
        """Return which of n rows are this rank's: an even share, empty where there are more ranks than rows."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def all_reduce(self, loss: Tensor, parameters: Iterable[Parameter]) -> Tensor:
        """Return the loss, a scalar, summed over all ranks; sum the gradients of the parameters likewise, in place.

        Raises UserError where another rank is gone.
        """
        if self.size == 1:
            return loss
        values = [loss, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
        summed = torch.cat([value.view(-1) for value in values])
        try:
            dist.all_reduce(summed)
        except RuntimeError as error:
            raise UserError("another rank failed; see its output") from error
        for value, total in zip(values, summed.split([value.numel() for value in values]), strict=True):
            value.copy_(total.view_as(value))
        return loss

    def broadcast(self, data: bytes) -> bytes:
        """Return the data of rank 0, on every rank."""
        if self.size == 1:
            return data
        length = torch.tensor(len(data), device=self.device)
        dist.broadcast(length, src=0)
        values = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if data:
            values.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(values, src=0)
        return values.cpu().numpy().tobytes()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Yield this process among those that train together, connected by NCCL on NVIDIA GPUs and by Gloo elsewhere."""
    ranks = Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")), device)
    if ranks.size == 1:
        yield ranks
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ranks
    finally:
        dist.destroy_process_group()
