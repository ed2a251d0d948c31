"""Write C++ code that computes recorded values for a block of lanes: of points, or of parameters.

A value that varies from lane to lane is computed in loops over its numbers, and in each of them over the lanes, which
the C++ compiler turns into vector instructions. An elementwise operator is computed where its result is used, unless
it is used several times.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from stages.train.compiled.graph import Node, UnsupportedError
from stages.train.compiled.indexing import Index, broadcast, in_source, indices, loops, position
from stages.train.compiled.operators import ELEMENTWISE, POWERS, PRODUCTS, REDUCTIONS, RESHAPES, TRANSPOSES, VIEWS
from stages.train.compiled.vectors import LANES

TYPES = {torch.float32: "float", torch.float64: "double", torch.bool: "bool", torch.int64: "int64_t"}
FEW = 16  # values in a lane: arrays of at most so many are on the stack, where the compiler can use registers
PADDING = 16  # padded() of loop.cpp adds fewer columns
# These need no code: alpha is applied in _computed, and the type is the node's own.
IGNORED = {"alpha", "device", "dtype", "implicit", "layout", "memory_format", "non_blocking", "pin_memory"}

Part = tuple[Index, Sequence[int], Index, list[str], str]  # index, shape, place in the array, lines, value


class Source:
    """Code that grows as values are asked for."""

    def __init__(self) -> None:
        self.once: list[str] = []  # what computes values that are the same in all lanes
        self.block: list[str] = []  # what computes values that vary
        self.floats = 0  # how much memory the code works in
        self.arrays: dict[Node, str] = {}
        self.transposed: dict[str, str] = {}
        self.names = 0

    def memory(self, floats: int) -> str:
        """Return the address of that many floats more."""
        self.floats += floats
        return f"work + {self.floats - floats}"

    def array(self, node: Node) -> str:
        """Return the name of an array of a node's values, (…), or (…, LANES) if they vary; it is computed once."""
        if node.operator == "input":
            return str(node.arguments[0])
        if node not in self.arrays:
            if node.operator == "constant":
                write = self._constant
            elif node.operator == "cat":
                write = self._joined
            elif _is_elementwise(node) or _is_view(node):
                write = self._elementwise
            elif node.operator in PRODUCTS:
                write = self._product
            else:
                write = self._reduction
            self.arrays[node] = write(node)
        return self.arrays[node]

    def vector(self, node: Node) -> str:
        """Return the name of an array of a node's values in order; a reshaped vector needs none of its own."""
        while node.operator in RESHAPES or (node.operator in TRANSPOSES and sum(size > 1 for size in node.shape) < 2):
            node = node.arguments[0]
        return self.array(node)

    def rows(self, node: Node) -> str:
        """Return the name of an array of a vector's values in each lane, (LANES, padded size)."""
        vector = self.vector(node)
        if vector not in self.transposed:
            name = self.transposed[vector] = self._name()
            self.block.append(f"float* __restrict const {name} = {self.memory((node.size + PADDING) * LANES)};")
            self.block.append(f"values_to_rows<{node.size}>({name}, {vector});")
        return self.transposed[vector]

    def value(self, node: Any, index: Index, lines: list[str], reads: float) -> str:
        """Return an expression for a value in lane r; append to the lines what computes it.

        reads: how many values of the node are read in all; if more than it has, they are computed once, into an array.
        """
        if not isinstance(node, Node):
            return _literal(node)
        if _is_view(node):
            reads = reads if node.uses < 2 else math.inf
            return self.value(node.arguments[0], in_source(node, index), lines, reads)
        if node.operator == "constant" and node.arguments[0].unique().numel() == 1:
            return _literal(node.arguments[0].flatten()[0].item(), single=node.dtype == torch.float32)
        here = node.varies and node.uses < 2 and reads <= node.size
        if _is_elementwise(node) and (here or node.dtype == torch.bool):
            return self._computed(node, index, lines)
        return _element(node, self.array(node), index)

    def _computed(self, node: Node, index: Index, lines: list[str]) -> str:
        """Return the name of a variable for a value of an elementwise node."""
        if unknown := set(node.options) - IGNORED:
            raise UnsupportedError(f"{node.operator} with {', '.join(sorted(unknown))}")
        places = [index] * len(node.arguments)
        if node.operator in PRODUCTS:  # of a column and a row
            places = [[*index[:-1], "0"], [*index[:-2], "0", index[-1]]]
        single = torch.float32 in (node.dtype, *(getattr(operand, "dtype", None) for operand in node.arguments))
        operands = []
        for operand, place in zip(node.arguments, places, strict=True):
            if not isinstance(operand, Node):
                operands.append(_literal(operand, single=single))
                continue
            text = self.value(operand, broadcast(place, operand.shape), lines, node.size)
            convert = single and operand.dtype in (torch.float64, torch.int64)
            operands.append(f"float({text})" if convert else text)
        if (alpha := node.options.get("alpha", 1)) != 1:
            operands[1] = f"{_literal(alpha, single=single)} * {operands[1]}"
        text = ELEMENTWISE.get(node.operator, "{0} * {1}")
        if node.operator == "pow" and not isinstance(node.arguments[1], Node):
            text = POWERS.get(node.arguments[1], text)
        name = self._name()
        lines.append(f"const {_type(node)} {name} = {text.format(*operands)};")
        return name

    def _name(self) -> str:
        self.names += 1
        return f"v{self.names}"

    def _declared(self, node: Node) -> str:
        """Return the name of a new array for the node's values."""
        name, kind, lines = self._name(), _type(node), self.block if node.varies else self.once
        if node.size <= FEW:
            lines.append(f"alignas(64) {kind} {name}[{max(1, node.size)} * {_lane_count(node)}];")
        elif kind == "float":
            floats = node.size * LANES if node.varies else -(-node.size // LANES) * LANES
            lines.append(f"float* __restrict const {name} = {self.memory(floats)};")
        else:
            raise UnsupportedError(f"{node.operator} with results of {node.dtype}")
        return name

    def _write(self, node: Node, code: str) -> None:
        (self.block if node.varies else self.once).append(code)

    def _constant(self, node: Node) -> str:
        name, single = self._name(), node.dtype == torch.float32
        values = ", ".join(_literal(value, single=single) for value in node.arguments[0].flatten().tolist())
        self.once.append(f"static const {_type(node)} {name}[] = {{{values}}};")
        return name

    def _elementwise(self, node: Node) -> str:
        index, lines = indices(node.shape), list[str]()
        value = self.value(node, index, lines, math.inf) if _is_view(node) else self._computed(node, index, lines)
        return self._assigned(node, [(index, node.shape, index, lines, value)])

    def _joined(self, node: Node) -> str:
        dim, parts, begin = [*node.arguments, 0][1] % len(node.shape), list[Part](), 0
        for source in node.arguments[0]:
            if source.size:  # else it may have too few dimensions
                index, lines = indices(source.shape), list[str]()
                place = [f"({at} + {begin})" if d == dim else at for d, at in enumerate(index)]
                value = self.value(source, index, lines, source.size)
                parts.append((index, source.shape, place, lines, value))
                begin += source.shape[dim]
        return self._assigned(node, parts)

    def _assigned(self, node: Node, parts: Iterable[Part]) -> str:
        """Write loops that compute the parts of a new array, of which the name is returned."""
        name = self._declared(node)
        for index, shape, place, lines, value in parts:
            assignment = f"{_element(node, name, place)} = {value};"
            self._write(node, loops(index, shape, lanes(*lines, assignment, count=_lane_count(node))))
        return name

    def _product(self, node: Node) -> str:
        a, b = node.arguments
        if node.operator == "mm" and (a.varies, b.varies, a.shape[0]) == (True, False, 1):
            return self._weighted_sums(node, a, *self._matrix(b))
        if node.operator == "mm" and (a.varies, b.varies, b.shape[1]) == (False, True, 1):
            weights, for_output, for_input = self._matrix(a)
            return self._weighted_sums(node, b, weights, for_input, for_output)
        index, lines = indices(node.shape), list[str]()
        left = self.value(a, [*index[:-1], "k"], lines, math.inf)
        right = self.value(b, [*index[:-2], "k", index[-1]], lines, math.inf)
        sizes = (index, node.shape), (["k"], a.shape[-1:])
        return self._folded(node, *sizes, lines, f"{left} * {right}", *REDUCTIONS["sum"])

    def _matrix(self, node: Node) -> tuple[str, int, int]:
        """Return the name of an array of a matrix, and how far apart its rows are, and its columns."""
        if node.operator in TRANSPOSES and in_source(node, ("i", "j")) == ["j", "i"]:
            name, of_columns, of_rows = self._matrix(node.arguments[0])
            return name, of_rows, of_columns
        return self.array(node), node.shape[1], 1

    def _weighted_sums(self, node: Node, vector: Node, weights: str, for_input: int, for_output: int) -> str:
        """Write the product of a vector that varies and a matrix that does not, by a function of loop.cpp."""
        array, name = self.vector(vector), self._declared(node)
        sizes = f"{node.size}, {vector.size}, {for_output}, {for_input}"
        self._write(node, f"product<{sizes}>({name}, {array}, {weights});")
        return name

    def _reduction(self, node: Node) -> str:
        source, dims = node.arguments[0], _reduced(node)
        index, lines = indices(source.shape), list[str]()
        value = self.value(source, index, lines, source.size)
        others, own = [d for d in range(len(index)) if d not in dims], sorted(dims)
        kept = [index[d] for d in others], [source.shape[d] for d in others]
        folded = [index[d] for d in own], [source.shape[d] for d in own]
        return self._folded(node, kept, folded, lines, value, *REDUCTIONS[node.operator])

    def _folded(
        self,
        node: Node,
        kept: tuple[Index, Sequence[int]],
        folded: tuple[Index, Sequence[int]],
        lines: Sequence[str],
        value: str,
        first: str,
        text: str,
    ) -> str:
        """Write a sum of a value, or another reduction, over some indices for each of the others."""
        name, kind, at, count = self._declared(node), _type(node), position(*kept), _lane_count(node)
        step = f"sum[r] = {text.format('sum[r]', 'next')};"
        code = [
            f"{kind} sum[{count}];",
            lanes(f"sum[r] = {first};", count=count),
            loops(*folded, lanes(*lines, f"const {kind} next = {value};", step, count=count)),
            lanes(f"{name}[{at} * {count} + r] = sum[r];", count=count),
        ]
        self._write(node, loops(*kept, " ".join(code)))
        return name


def lanes(*lines: str, count: str = "LANES") -> str:
    """Return the lines in a loop over the lanes."""
    return f"for (int r = 0; r < {count}; ++r) {{ {' '.join(lines)} }}"


def outer_product(node: Node) -> tuple[Node, Node] | None:
    """Return the column and the row that vary, and whose product a node is, or None."""
    if node.operator == "mm" and _is_elementwise(node) and all(factor.varies for factor in node.arguments):
        return node.arguments[0], node.arguments[1]
    if node.operator in RESHAPES and node.shape == node.arguments[0].shape:
        return outer_product(node.arguments[0])
    if node.operator in TRANSPOSES and len(node.shape) == 2 and in_source(node, ("i", "j")) == ["j", "i"]:
        factors = outer_product(node.arguments[0])
        return factors and factors[::-1]
    return None


def _element(node: Node, array: str, index: Index) -> str:
    at = position(index, node.shape)
    return f"{array}[{at} * LANES + r]" if node.varies else f"{array}[{at}]"


def _type(node: Node) -> str:
    if node.dtype not in TYPES:
        raise UnsupportedError(f"values of {node.dtype}")
    return TYPES[node.dtype]


def _lane_count(node: Node) -> str:
    return "LANES" if node.varies else "1"


def _is_elementwise(node: Node) -> bool:
    return node.operator in ELEMENTWISE or (node.operator in PRODUCTS and node.arguments[0].shape[-1] == 1)


def _is_view(node: Node) -> bool:
    return node.operator in VIEWS or (node.operator in REDUCTIONS and node.size == node.arguments[0].size)


def _reduced(node: Node) -> set[int]:
    """Return the dimensions that a reduction sums over."""
    dims = [*node.arguments, None][1]
    all_dims = range(len(node.arguments[0].shape))
    return {d % len(all_dims) for d in ([dims] if isinstance(dims, int) else dims or all_dims)}


def _literal(value: Any, *, single: bool = True) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not math.isfinite(value):
        return "NAN" if math.isnan(value) else f"({'-' * (value < 0)}INFINITY)"
    text = f"{float(value)!r}f" if single else repr(value)
    return f"({text})" if value < 0 else text
