"""Connect the processes that train together."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

from stages.runtime.errors import UserError, one_line
from stages.train.ranks.exchange import END, STEP, Ranks, named, within

START = 120.0  # seconds for all to start: time to type a command on a second machine, or to load torch from a slow disk


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Yield this process among those that train together, connected by NCCL on NVIDIA GPUs and by Gloo elsewhere.

    Raises UserError if some do not start, or if they train on different kinds of device.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks(rank, size, device)
        return
    ranks = Ranks(rank, size, device, _store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), rank == 0))
    try:
        devices = ranks.exchange_texts("device", device.type, START)
        missing = [other for other in range(size) if other not in devices and other != rank]
        if missing:
            raise UserError(f"{named(missing)} did not start within {START:.0f} seconds: start all {size} ranks")
        if len(set(devices.values())) > 1:
            kinds = ", ".join(devices.values())
            raise UserError(f"train.device: must be the same kind of device on all ranks, got {kinds}")
        with ranks.exchange():
            dist.init_process_group(
                "nccl" if device.type == "cuda" else "gloo",
                store=ranks.store,
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=STEP),
            )
        yield ranks
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        ranks.exchange_texts("state", "ended", 0)
        ranks.exchange_texts("left", "", END)  # the process that keeps the store must leave last


def _store(address: str, port: int, first: bool) -> dist.Store:
    """Return the store that all ranks share. The first rank keeps it, unless torchrun keeps one for its ranks.

    Raises UserError if there is no such address, if the port is taken, or if rank 0 does not start in time.
    """
    keeps = first and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    where = f"MASTER_ADDR={address}, MASTER_PORT={port}"
    try:
        socket.getaddrinfo(address, port)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{where}: no such address: {one_line(error)}") from error
    try:
        store = within(
            START,
            lambda: dist.TCPStore(address, port, None, keeps, timedelta(seconds=START), wait_for_workers=False),
        )
    except (RuntimeError, TookTooLong) as error:
        if "EADDRINUSE" in str(error):
            raise UserError(f"{where}: the port is taken: choose another one on all machines") from error
        raise UserError(f"{where}: rank 0 did not start there within {START:.0f} seconds") from error
    return dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
