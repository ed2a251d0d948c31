"""The operators of torch that can be written in C++, and how."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

# {0}, {1}, {2}: the operands.
LOGICAL = {"bitwise_and": "{0} && {1}", "bitwise_not": "!{0}", "bitwise_or": "{0} || {1}"}
LOGICAL |= {"logical_and": "{0} && {1}", "logical_not": "!{0}", "logical_or": "{0} || {1}"}
ELEMENTWISE = LOGICAL | {
    "_to_copy": "{0}",
    "abs": "std::fabs({0})",
    "acos": "std::acos({0})",
    "add": "{0} + {1}",
    "asin": "std::asin({0})",
    "atan": "std::atan({0})",
    "atan2": "std::atan2({0}, {1})",
    "ceil": "std::ceil({0})",
    "convert_element_type": "{0}",
    "copy": "{1}",
    "cos": "std::cos({0})",
    "cosh": "std::cosh({0})",
    "div": "{0} / {1}",
    "eq": "{0} == {1}",
    "erf": "std::erf({0})",
    "erfc": "std::erfc({0})",
    "exp": "std::exp({0})",
    "exp2": "std::exp2({0})",
    "expm1": "std::expm1({0})",
    "floor": "std::floor({0})",
    "ge": "{0} >= {1}",
    "gt": "{0} > {1}",
    "isnan": "{0} != {0}",
    "le": "{0} <= {1}",
    "log": "std::log({0})",
    "log10": "std::log10({0})",
    "log1p": "std::log1p({0})",
    "log2": "std::log2({0})",
    "lt": "{0} < {1}",
    "maximum": "{0} > {1} || {0} != {0} ? {0} : {1}",  # as in torch, nan if one of them is
    "minimum": "{0} < {1} || {0} != {0} ? {0} : {1}",
    "mul": "{0} * {1}",
    "ne": "{0} != {1}",
    "neg": "-{0}",
    "pow": "std::pow({0}, {1})",
    "reciprocal": "1 / {0}",
    "relu": "{0} < 0 ? 0 : {0}",
    "round": "std::nearbyint({0})",
    "rsqrt": "1 / std::sqrt({0})",
    "sigmoid": "1 / (1 + std::exp(-{0}))",
    "sign": "({0} > 0) - ({0} < 0)",
    "sin": "std::sin({0})",
    "sinh": "std::sinh({0})",
    "sqrt": "std::sqrt({0})",
    "sub": "{0} - {1}",
    "tan": "std::tan({0})",
    "tanh": "std::tanh({0})",
    "trunc": "std::trunc({0})",
    "where": "{0} ? {1} : {2}",
}
POWERS = {1: "{0}", 2: "{0} * {0}", 3: "{0} * {0} * {0}", 0.5: "std::sqrt({0})", -1: "1 / {0}"}
REDUCTIONS = {  # what they begin with, and how the result so far, {0}, goes on with the next value, {1}
    "amax": ("-INFINITY", ELEMENTWISE["maximum"]),
    "amin": ("INFINITY", ELEMENTWISE["minimum"]),
    "sum": ("0", "{0} + {1}"),
}
PRODUCTS = {"bmm", "mm"}
# The same values in the same order.
RESHAPES = {"_reshape_alias", "_unsafe_view", "alias", "clone", "detach", "squeeze", "unsqueeze", "view", "view_of"}
TRANSPOSES = {"permute", "t", "transpose"}
VIEWS = {*RESHAPES, *TRANSPOSES, "broadcast_in_dim", "expand", "select", "slice"}
KNOWN = frozenset({*ELEMENTWISE, *REDUCTIONS, *PRODUCTS, *VIEWS, "cat"})
# The results of these depend only on the shape of what they take.
CONSTANT = {"empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"}

aten = torch.ops.aten


def _addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = torch.mm(a, b) if a.dim() == 2 else torch.bmm(a, b)
    return (product if alpha == 1 else alpha * product) + (bias if beta == 1 else beta * bias)


def _slice_backward(gradient: Tensor, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Tensor:
    start, end, _ = slice(start, end).indices(sizes[dim])
    return _pad_with_zeros(gradient, dim, start, sizes[dim] - end) if step == 1 else NotImplemented


def _pad_with_zeros(values: Tensor, dim: int, before: int, after: int) -> Tensor:
    def zeros(count: int) -> Tensor:
        return torch.zeros([count if d == dim % values.dim() else size for d, size in enumerate(values.shape)])

    return torch.cat([zeros(before), values, zeros(after)], dim)


def _mean(values: Tensor, dims: Sequence[int] | None, keepdim: bool = False, **_: Any) -> Tensor:
    dims = list(dims or range(values.dim()))
    return values.sum(dims, keepdim) * (1 / math.prod(values.shape[d] for d in dims))


def _variance(values: Tensor, dims: Sequence[int], correction: float = 1, **_: Any) -> Tensor:
    count = math.prod(values.shape[d] for d in dims)
    return (values - _mean(values, dims, keepdim=True)).square().sum(list(dims)) * (1 / (count - correction))


def _split(values: Tensor, sizes: int | Sequence[int], dim: int = 0) -> list[Tensor]:
    total = values.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)]
    return [values.narrow(dim, end - size, size) for end, size in zip(accumulate(sizes), sizes, strict=True)]


# Operators that torch does not decompose into known ones, and those that every training needs: to decompose these,
# torch would import SymPy, which takes longer than everything else here.
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    aten.addcmul.default: lambda values, a, b, *, value=1: values + value * a * b,
    aten.addmm.default: _addmm,
    aten.baddbmm.default: _addmm,
    aten.lerp.Scalar: lambda start, end, weight: start + weight * (end - start),
    aten.mean.dim: _mean,
    aten.mse_loss.default: lambda prediction, y, reduction=1: (
        NotImplemented if reduction else (prediction - y).square()
    ),
    aten.mse_loss_backward.default: lambda gradient, prediction, y, reduction: (
        NotImplemented if reduction else gradient * 2 * (prediction - y)
    ),
    aten.rsub.Scalar: lambda values, other, alpha=1: -alpha * values + other,
    aten.select_backward.default: lambda gradient, sizes, dim, index: _pad_with_zeros(
        gradient.unsqueeze(dim), dim, index % sizes[dim], sizes[dim] - 1 - index % sizes[dim]
    ),
    aten.sgn.default: torch.sign,
    aten.slice_backward.default: _slice_backward,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.square.default: lambda values: values * values,
    aten.threshold_backward.default: lambda gradient, values, threshold: torch.where(
        values <= threshold, 0.0, gradient
    ),
    torch.ops.prims.var.default: _variance,
}
