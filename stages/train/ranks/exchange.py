"""The processes that train together: one, or as many as a launcher such as torchrun has started.

They exchange tensors by torch's collective operations, and texts through torch's store, a table that one process
(rank 0, or torchrun) keeps for all. A failed collective operation does not say which rank is missing; the store does.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import contextmanager
from threading import Thread
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

from stages.runtime.errors import UserError, one_line

# Seconds that the ranks wait for each other, once they are connected.
STEP = 300.0  # in one exchange: the ranks share the work evenly, but rank 0 saves checkpoints too
END = 3.0  # to find out, after an exchange has failed, which ranks are still there

T = TypeVar("T")


class Ranks(NamedTuple):
    """The number of this process, `rank`, among the `size` processes that train together."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # where the tensors must be that the ranks exchange
    store: dist.Store | None = None  # for the texts that they exchange; None for a single rank

    def share(self, n: int) -> slice:
        """Return which of n rows are this rank's: an even share, possibly empty if there are more ranks than rows."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def all_reduce(self, loss: Tensor, parameters: Iterable[Parameter]) -> Tensor:
        """Sum the loss, a scalar, and the parameters' gradients over all ranks, both in place; return the loss.

        Raises UserError if another rank is gone.
        """
        if self.size == 1:
            return loss
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([parameter.grad is not None for parameter in learning], dtype=loss.dtype)
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in learning]
        values = [loss, used.to(loss.device), *gradients]
        summed = torch.cat([value.reshape(-1) for value in values])
        with self.exchange():
            dist.all_reduce(summed)
        loss, used, *totals = summed.split([value.numel() for value in values])
        for parameter, ranks, total in zip(learning, used.tolist(), totals, strict=True):
            parameter.grad = total.view_as(parameter) if ranks else None  # None where no rank used it
        return loss.view(())

    def broadcast(self, data: bytes) -> bytes:
        """Return rank 0's data on every rank. Raises UserError if another rank is gone."""
        if self.size == 1:
            return data
        with self.exchange():
            length = torch.tensor(len(data), device=self.device)
            dist.broadcast(length, src=0)
            values = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
            if data:
                values.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            dist.broadcast(values, src=0)
        return values.cpu().numpy().tobytes()

    def compare(self, traits: dict[str, str]) -> None:
        """Raise UserError if the traits of what the ranks are about to train differ; say which differ on which rank."""
        if self.size == 1:
            return
        told = {
            rank: json.loads(text) for rank, text in self.exchange_texts("traits", json.dumps(traits), STEP).items()
        }
        if len(told) < self.size:
            raise UserError(self._who_is_gone() or "lost contact with the other ranks")
        different = {
            rank: ", ".join(name for name in told[0] | theirs if theirs.get(name) != told[0].get(name))
            for rank, theirs in told.items()
        }
        faults = [
            f"{named([rank])} has different {names}: give all machines the same params.yaml, data and code"
            for rank, names in different.items()
            if names
        ]
        if faults:
            raise UserError("\n".join(faults))

    def ask_to_stop(self) -> None:
        """Ask rank 0 to stop the training for all ranks."""
        if self.store:
            self.store.set("stop", "")

    def asked_to_stop(self) -> bool:
        """Return whether another rank has asked to stop."""
        return self.store is not None and self.store.check(["stop"])

    def exchange_texts(self, topic: str, text: str, seconds: float) -> dict[int, str]:
        """Send all ranks a text on a topic; return, by rank, the texts that they send within so many seconds.

        Only the first text that a rank sends on a topic counts. Return {} if the process that keeps the store is gone.
        """
        store, deadline, told = self.store, time.monotonic() + seconds, dict[int, str]()
        assert store

        def listen() -> None:
            store.compare_set(f"{topic}/{self.rank}", "", text)
            while len(told) < self.size and time.monotonic() < deadline:
                for rank in set(range(self.size)) - told.keys():
                    if store.check([f"{topic}/{rank}"]):
                        told[rank] = store.get(f"{topic}/{rank}").decode()
                time.sleep(0.01)

        try:
            within(seconds + 1, listen)
        except (RuntimeError, TookTooLong):
            return {}
        return dict(sorted(told.items()))

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Turn the failure of a collective operation in the block into a UserError that says which rank is gone."""
        try:
            yield
        except RuntimeError as error:
            raise UserError(self._who_is_gone() or f"lost contact with the other ranks: {one_line(error)}") from error

    def _who_is_gone(self) -> str:
        told = self.exchange_texts("state", "waiting", END)
        ended = [rank for rank, text in told.items() if text == "ended"]
        silent = [rank for rank in range(self.size) if rank not in told] if told else [0]  # rank 0 keeps the store
        if not (ended or silent):
            return ""
        gone = f"{named(ended)} ended" if ended else f"no answer from {named(silent)}"
        return f"{gone}; see {'its' if len(ended or silent) == 1 else 'their'} output"


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return what action returns. Raises concurrent.futures.TimeoutError if it takes longer.

    It runs in a separate thread: the store's functions do not react to signals, and some wait forever for a process
    that is stopped.
    """
    future: Future[T] = Future()

    def act() -> None:
        try:
            future.set_result(action())
        except Exception as error:
            future.set_exception(error)

    Thread(target=act, daemon=True).start()
    return future.result(seconds)


def named(ranks: list[int]) -> str:
    """Return, for instance, `rank 1` or `ranks 1, 2`."""
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"
