"""Record what a function computes, operator by operator, as it runs on tensors that stand for its inputs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from stages.train.compiled.operators import CONSTANT, DECOMPOSITIONS, KNOWN


class UnsupportedError(Exception):
    """An operator that cannot be written in C++, by name."""


@dataclass(eq=False)
class Node:
    """An input, or what an operator returns."""

    operator: str  # of torch, without an overload, such as "mul"; or "input", or "constant"
    arguments: Sequence[Any]  # nodes, numbers, lists of them; of an input its name in C++, of a constant the tensor
    options: dict[str, Any]  # arguments by name
    shape: tuple[int, ...]
    dtype: torch.dtype
    varies: bool  # from lane to lane: from point to point, or from parameter to parameter
    uses: int = field(default=0)  # how often other nodes take it

    @property
    def size(self) -> int:
        """Return how many numbers it has, in each lane if it varies."""
        return math.prod(self.shape)


class Recorder(TorchDispatchMode):
    """Records the operators in a block that compute with its inputs; whatever else is computed there is a constant.

    A tensor is known by its place in memory, so that one that autograd has kept is recognized when it comes back.
    Raises UnsupportedError, in the block, for operators that are neither known nor made of those that are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.nodes: dict[tuple[Any, ...], Node] = {}  # by place, in the order in which they are computed
        self.overwritten: set[int] = set()  # memory that was changed in place: other views of it are not known
        self.alive: list[Tensor] = []  # else the same memory would become another tensor's

    def input(self, name: str, tensor: Tensor, *, varies: bool) -> Tensor:
        """Return the tensor; from now on it is the input with this name in C++."""
        self._record(tensor, Node("input", [name], {}, tuple(tensor.shape), tensor.dtype, varies))
        return tensor

    def node(self, value: Any) -> Any:
        """Return the node of a tensor; return anything else as it is."""
        if not isinstance(value, Tensor):
            return value
        if _place(value) in self.nodes:
            return self.nodes[_place(value)]
        if _place(value)[0] in self.overwritten:
            raise UnsupportedError("a change in place of a part of a tensor")
        return Node("constant", [value.detach().clone()], {}, tuple(value.shape), value.dtype, varies=False)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, in_place = function.overloadpacket.__name__, function._schema.is_mutable
        tensors = [leaf for leaf in tree_leaves([args, kwargs]) if isinstance(leaf, Tensor)]
        if name in CONSTANT or not any(_place(tensor) in self.nodes for tensor in tensors):
            return function(*args, **kwargs)
        if in_place:
            name = name.removesuffix("_")
        if name not in KNOWN:
            with self:
                return self._decomposed(function, name, in_place, args, kwargs)
        arguments, options = tree_map(self.node, [list(args), kwargs])
        nodes = [leaf for leaf in tree_leaves([arguments, options]) if isinstance(leaf, Node)]
        result = function(*args, **kwargs)
        if not isinstance(result, Tensor):
            raise UnsupportedError(name)
        if in_place:
            options.pop("out", None)
            memory = _place(result)[0]
            self.overwritten.add(memory)
            self.nodes = {place: node for place, node in self.nodes.items() if place[0] != memory}
        varies = any(node.varies for node in nodes)
        self._record(result, Node(name, arguments, options, tuple(result.shape), result.dtype, varies))
        return result

    def _decomposed(self, function: Any, name: str, in_place: bool, args: Any, kwargs: Any) -> Any:
        """Call the function as the operators that it decomposes into."""
        if in_place:
            target = kwargs.pop("out", args[0])
            return target.copy_(getattr(torch.ops.aten, name)(*args, **kwargs))
        for decomposition in (DECOMPOSITIONS.get(function), decomposition_table.get(function), function.decompose):
            result = decomposition(*args, **kwargs) if decomposition else NotImplemented
            if result is not NotImplemented:
                return result
        raise UnsupportedError(name)

    def _record(self, tensor: Tensor, node: Node) -> None:
        self.alive.append(tensor)
        self.nodes[_place(tensor)] = node


def count_uses(outputs: Sequence[Node]) -> None:
    """Count how often each node is taken by another that the outputs need, or is an output."""
    waiting, seen = list(set(outputs)), set(outputs)
    for node in outputs:
        node.uses += 1
    while waiting:
        node = waiting.pop()
        for taken in tree_leaves([list(node.arguments), list(node.options.values())]):
            if isinstance(taken, Node):
                taken.uses += 1
                if taken not in seen:
                    seen.add(taken)
                    waiting.append(taken)


def _place(tensor: Tensor) -> tuple[Any, ...]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype
