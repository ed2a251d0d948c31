"""The processes that train together: one, or as many as a launcher such as torchrun has started."""

import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from stages.runtime.errors import UserError

# How long a rank waits for the others: to start, and in one exchange. Rank 0 also saves checkpoints meanwhile.
TIMEOUT = timedelta(seconds=300)


class Ranks(NamedTuple):
    """The number of this process, `rank`, among the `size` processes that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # where the tensors must be that the ranks exchange
    store: dist.Store | None = None  # keys and values that all ranks share; None for a single rank

    def share(self, n: int) -> slice:
        """Return which of n rows are this rank's: an even share, possibly empty if there are more ranks than rows."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def all_reduce(self, loss: Tensor, parameters: Iterable[Parameter]) -> Tensor:
        """Sum the parameters' gradients, in place, and the loss over all ranks; return that sum of losses.

        Raises UserError if another rank has failed.
        """
        if self.size == 1:
            return loss
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        has_gradient = torch.tensor([parameter.grad is not None for parameter in trained], dtype=loss.dtype)
        gradients = [torch.zeros_like(values) if values.grad is None else values.grad for values in trained]
        parts = [loss, has_gradient.to(loss.device), *gradients]
        summed = torch.cat([part.reshape(-1) for part in parts])
        with exchange():
            dist.all_reduce(summed)
        total, has_gradient, *sums = summed.split([part.numel() for part in parts])
        for parameter, ranks, gradient in zip(trained, has_gradient.tolist(), sums, strict=True):
            parameter.grad = gradient.view_as(parameter) if ranks else None  # None where no rank has one
        return total.view_as(loss)

    def broadcast(self, data: bytes) -> bytes:
        """Return rank 0's data on every rank. Raises UserError if another rank has failed."""
        values = [data]
        if self.size > 1:
            with exchange():
                dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def compare(self, traits: dict[str, str]) -> None:
        """Raise UserError if rank 0 is about to train something else; name the traits that are different."""
        expected = json.loads(self.broadcast(json.dumps(traits).encode()))
        different = [name for name in expected | traits if expected.get(name) != traits.get(name)]
        if different:
            raise UserError(
                f"rank 0 has different {', '.join(different)}: give all ranks the same params.yaml, data and code"
            )

    def ask_to_stop(self) -> None:
        """Ask rank 0 to stop the training for all ranks. Raises UserError if it has failed."""
        if self.store:
            with exchange():
                self.store.set("stop", "")

    def asked_to_stop(self) -> bool:
        """Return whether another rank has asked to stop. Raises UserError if the process with the store has failed."""
        with exchange():
            return self.store is not None and self.store.check(["stop"])


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Yield this process among those that train together, connected by NCCL on NVIDIA GPUs and by Gloo elsewhere.

    Raises UserError if some of them do not start, or if only some use a GPU.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(rank, size, device)
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    address = f"MASTER_ADDR={os.environ['MASTER_ADDR']}, MASTER_PORT={os.environ['MASTER_PORT']}"
    with ended_by_signals(), exchange(f"{address}: cannot connect all {size} ranks; see the output of each"):
        store = next(dist.rendezvous("env://", timeout=TIMEOUT))[0]
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)  # restarted ranks' own
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield Ranks(rank, size, device, store)
    finally:
        dist.destroy_process_group()


@contextmanager
def exchange(failure: str = "another rank failed or ended; see its output") -> Iterator[None]:
    """Turn a failure of what the ranks do together, in the block, into a UserError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]  # the other lines are stack frames
        raise UserError(f"{failure} ({reason})") from error


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """In the block, let SIGINT and SIGTERM end the process at once: Python's handlers do not run while torch waits."""
    handled = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in handled}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
