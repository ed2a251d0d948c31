"""Where the values of an array are: C++ expressions for indices and positions."""

from collections.abc import Sequence
from typing import Any

from stages.train.compiled.graph import Node
from stages.train.compiled.operators import TRANSPOSES

Index = Sequence[str]  # an expression for each dimension


def indices(shape: Sequence[int]) -> list[str]:
    """Return names for the indices of a shape; 0 where there is only one."""
    return ["0" if size == 1 else f"i{d}" for d, size in enumerate(shape)]


def loops(index: Index, shape: Sequence[int], code: str) -> str:
    """Return the code in loops over the indices of a shape."""
    heads = [f"for (int {at} = 0; {at} < {size}; ++{at}) " for at, size in zip(index, shape, strict=True) if at != "0"]
    return f"{''.join(heads)}{{ {code} }}"


def position(index: Index, shape: Sequence[int]) -> str:
    """Return the offset of the value at an index in a contiguous array of this shape."""
    at = ""
    for own, size in zip(index, shape, strict=True):
        if size != 1:
            at = f"({at} * {size} + {own})" if at else own
    return at or "0"


def broadcast(index: Index, shape: Sequence[int]) -> list[str]:
    """Return the index, in an array of this shape, of the value that broadcasting puts at an index."""
    return ["0" if size == 1 else at for at, size in zip(index[len(index) - len(shape) :], shape, strict=True)]


def in_source(view: Node, index: Index) -> list[str]:
    """Return the index in the source of a view of the value at an index in the view."""
    source, arguments = view.arguments[0].shape, list(view.arguments[1:])
    if view.operator == "expand":
        return broadcast(index, source)
    if view.operator == "broadcast_in_dim":
        return broadcast([index[d] for d in arguments[1]], source)
    if view.operator in TRANSPOSES:
        order = list(range(len(source)))
        if view.operator == "permute":
            order = [d % len(source) for d in arguments[0]]
        elif len(source) > 1:
            first, second = arguments or (0, 1)
            order[first], order[second] = order[second], order[first]
        return [index[order.index(d)] for d in range(len(source))]
    if view.operator == "select":
        dim, number = arguments
        own = list(index)
        own.insert(dim % len(source), str(number % source[dim]))
        return own
    if view.operator == "slice":
        given: Any = [*arguments, *(0, None, None, 1)[len(arguments) :]]
        dim, start, end, step = given
        first, _, step = slice(start, end, step).indices(source[dim])
        own = list(index)
        own[dim] = f"({own[dim]} * {step} + {first})"
        return own
    return _reshaped(index, view.shape, source)


def _reshaped(index: Index, shape: Sequence[int], source: Sequence[int]) -> list[str]:
    """Return the index in an array of a source shape, which has the same values in the same order."""
    names = [at for at, size in zip(index, shape, strict=True) if size != 1]
    if [size for size in shape if size != 1] == [size for size in source if size != 1]:
        return ["0" if size == 1 else names.pop(0) for size in source]
    at, own, below = position(index, shape), list[str](), 1
    for size in reversed(source):
        own.insert(0, f"({at} / {below} % {size})")
        below *= size
    return own
