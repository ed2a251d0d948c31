"""Call the functions of a compiled library, for each network by itself, on several cores."""

import ctypes
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from stages.train.compiled.vectors import LANES, Vectors
from stages.train.parallel import SMALL_WORK


class Rows(NamedTuple):
    """Points in an order."""

    x: Tensor  # float32 (points, n_feature)
    y: Tensor  # float32 (points, n_output)
    order: Tensor | None  # the rows of each network's points, int (networks, n); None: all rows as they are
    first: int  # the position in the order where they begin; 0 without an order
    n: int  # how many points


class Calls:
    """The functions of a library, on this many cores. The number decides the results; how busy they are does not."""

    def __init__(self, functions: ctypes.CDLL, cores: int) -> None:
        self.functions, self.cores, self.pool = functions, cores, ThreadPoolExecutor(cores)
        self.work = torch.zeros(cores, functions.floats_of_work())  # zeros, for nothing writes to the padding of rows
        self.barrier = torch.zeros(2, dtype=torch.int32)

    def gradients(self, vectors: Vectors, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of each network's mean loss, (networks, padded size), and the losses, (networks,).

        x: (n, n_feature); y: (n, n_output).
        """
        x, y = x.contiguous(), y.contiguous()
        networks, size = vectors.values.shape[1:]
        results = torch.empty(networks, size + LANES)
        for network in range(networks):
            tensors = vectors.values[0, network], vectors.fixed[network], self.work, results[network]
            self.functions.gradient(x.data_ptr(), y.data_ptr(), len(x), *(tensor.data_ptr() for tensor in tensors))
        return results[:, :size].contiguous(), results[:, size]

    def step(self, vectors: Vectors, rate: float, gradients: Tensor) -> None:
        """Take a step of each network with a gradient that is given, (networks, padded size)."""
        stride = vectors.values.stride(0)
        for gradient, parameters, scalars in zip(gradients, vectors.values[0], vectors.scalars, strict=True):
            self.functions.step(rate, gradient.data_ptr(), parameters.data_ptr(), stride, scalars.data_ptr())

    def take_steps(self, vectors: Vectors, rate: float, rows: Rows, batch: int, steps: int) -> Tensor:
        """Take steps with one batch after the other; return their losses, (steps, networks).

        If the rows are a single batch, each step takes it again.
        """
        networks, size = vectors.values.shape[1:]
        losses = torch.empty(steps, networks)

        def take(network: int, work: int, thread: int, threads: int) -> None:
            order, wide = 0, False
            if rows.order is not None:
                order, wide = rows.order[network, rows.first :].data_ptr(), rows.order.dtype == torch.int64
            self.functions.take_steps(
                *(thread, threads, self.barrier.data_ptr(), self.work[work].data_ptr()),
                *(vectors.values[0, network].data_ptr(), vectors.values.stride(0)),
                *(vectors.scalars[network].data_ptr(), vectors.fixed[network].data_ptr()),
                *(rows.x.data_ptr(), rows.y.data_ptr(), order, wide, rows.n, batch),
                *(rate, steps, losses[:, network].data_ptr(), networks),
            )

        def take_some(worker: int) -> None:
            for network in range(worker, networks, self.cores):
                take(network, work=worker, thread=0, threads=1)

        def take_a_share(thread: int) -> None:
            take(0, work=0, thread=thread, threads=self.cores)

        if self.cores == 1 or (networks == 1 and batch * size < SMALL_WORK):
            take_some(0)
        else:
            list(self.pool.map(take_a_share if networks == 1 else take_some, range(self.cores)))
        return losses
