"""The five steps of loop.py as one function, a loop over many steps, for torch's compiler to turn into C++.

It is traced from what loop.py runs: the network, the loss, and the optimizer's own step. Parameters, gradient and each
entry of the optimizer's state are a vector each, which the loop changes in place.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop_op
from torch.func import functional_call, functionalize, grad_and_value
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode

from stages.train.compiled.recipe import Recipe, fixed_tensors
from stages.train.loss import loss_of_rows

BRANCHING = ("ASGD", "RAdam", "Rprop")  # these branch in Python on a number that changes, except under torch.compile
aten = torch.ops.aten
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default}


def loop_over_steps(recipe: Recipe) -> Callable[..., Tensor]:
    """Return a function that takes a step for each row of `steps`.

    loop(losses, gradient, parameters, *state, *fixed, steps, rates, x, y) changes losses, gradient, parameters and
    state in place and returns the number of steps taken. `fixed`: the buffers and the parameters that do not learn. x
    is (n, n_feature), y (n, n_output), losses (k,); of several networks, losses are (k, networks), and if they learn
    from different points, x and y have networks as their first dimension, too. A row of steps, int64 (k, 3), is (the
    first point of a micro-batch, how many points to leave out at its beginning, whether the batch ends with it); a row
    of rates, float64 (k, 2), is (learning rate, weight of a point in the mean loss). The gradient, followed by the
    loss so far, is carried from micro-batch to micro-batch.
    """
    rows, shapes = recipe.rows, [parameter.shape for parameter in recipe.parameters().values()]
    sizes = [shape.numel() for shape in shapes]
    fixed = len(fixed_tensors(recipe.net, recipe.learning))
    backpropagate, take_step = _traced_backpropagation(recipe), _traced_step(recipe)
    products = PRODUCTS & {node.target for node in backpropagate.graph.nodes}

    def body(index: Tensor, losses: Tensor, gradient: Tensor, *rest: Tensor) -> tuple[Tensor]:
        *values, steps, rates, x, y = rest
        values, constants = values[: 1 + len(recipe.state)], values[1 + len(recipe.state) :]
        now = _number(index)
        start, left_out, ends = aten.select.int(steps, 0, now).unbind()
        rate, weight = aten.select.int(rates, 0, now).unbind()
        first = _number(start)
        some_x, some_y = (_rows(points, first, rows) for points in (x, y))
        included = torch.arange(rows, dtype=torch.int32)[:, None] >= left_out.int()  # (rows, 1)
        weights = torch.where(included, weight.float(), 0.0)
        parameters = values[0] if products else _spread(values[0])  # without products, all is elementwise
        shaped = [part.reshape(shape) for part, shape in zip(parameters.split(sizes), shapes, strict=True)]

        # prediction, loss, backward
        total = gradient + backpropagate(some_x, some_y, weights, *shaped, *constants)
        stepped = take_step(rate, total[: sum(sizes)], *values)
        for before, after in zip(values, stepped, strict=True):
            before.copy_(torch.where(ends != 0, after, before))  # step, once the batch ends
        gradient.copy_(torch.where(ends != 0, 0.0, total))  # zero_grad
        aten.select.int(losses, 0, now).copy_(total[sum(sizes) :].reshape(recipe.each))
        return (index + 1,)

    def condition(index: Tensor, losses: Tensor, *_: Tensor) -> Tensor:
        return index < losses.shape[0]

    def loop(*arguments: Tensor) -> Tensor:
        changed = ",".join(str(index) for index in range(1, len(arguments) - fixed - 3))  # index 0 is the loop's index
        zero = torch.zeros((), dtype=torch.int64)
        return while_loop_op(condition, body, (zero,), arguments, mutated_arg_indices=changed)[0]

    return loop


def _traced_backpropagation(recipe: Recipe) -> GraphModule:
    """Return a function that computes the gradient at some points, in one vector, and after it the loss.

    Its arguments are x, y, the weights of the points, (rows, 1), the parameters and what is fixed. Several networks
    have a loss each, and learn from the sum, as in loop.py.
    """
    net, of_rows = recipe.net, loss_of_rows(recipe.loss_function)
    learning = {name: parameter.detach() for name, parameter in recipe.parameters().items()}
    fixed = fixed_tensors(net, recipe.learning)

    def backpropagate(x: Tensor, y: Tensor, weights: Tensor, *tensors: Tensor) -> Tensor:
        parameters, constants = tensors[: len(learning)], dict(zip(fixed, tensors[len(learning) :], strict=True))

        def loss_at(parameters: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            named = constants | dict(zip(learning, parameters, strict=True))
            prediction = functional_call(net, named, (x,))  # (rows, n_output), or (networks, rows, n_output)
            losses = (of_rows(prediction, y) * weights).sum((-2, -1))  # (), or (networks,)
            return losses.sum(), losses

        with _NarrowLayers():
            gradients, (_, losses) = grad_and_value(loss_at, has_aux=True)(parameters)
        return torch.cat([values.reshape(-1) for values in (*gradients, losses)])

    x, y = (torch.ones(*recipe.leading, recipe.rows, width) for width in (recipe.n_feature, recipe.n_output))
    return make_fx(functionalize(backpropagate))(x, y, torch.ones(recipe.rows, 1), *learning.values(), *fixed.values())


def _traced_step(recipe: Recipe) -> GraphModule:
    """Return a function that takes a step of the optimizer.

    Its arguments are the learning rate, the gradient, the parameters and the state; it returns the last two, changed.
    """

    def step(rate: Tensor, gradient: Tensor, parameters: Tensor, *state: Tensor) -> list[Tensor]:
        parameters = parameters.clone()
        parameters.grad = gradient
        optimizer = getattr(torch.optim, recipe.optimizer)([parameters])
        plain = {"foreach": False, "fused": False, "capturable": recipe.optimizer in BRANCHING}
        optimizer.param_groups[0].update(recipe.options, lr=rate, **plain)
        own = optimizer.state[parameters]
        for name, values in zip(recipe.state, state, strict=True):
            own[name] = values.clone() if values.dim() else values.double()  # as precise as Python's numbers
        with torch.no_grad(), _Scalars(), _is_compiling(recipe.optimizer in BRANCHING):
            _undecorated(type(optimizer).step)(optimizer)
        return [parameters, *(own[name].to(values.dtype) for name, values in zip(recipe.state, state, strict=True))]

    vector = torch.ones(sum(map(Tensor.numel, recipe.parameters().values())))
    state = [torch.ones(()) if scalar else vector.clone() for scalar in recipe.state.values()]
    return make_fx(functionalize(step))(torch.ones((), dtype=torch.float64), vector.clone(), vector, *state)


class _NarrowLayers(TorchFunctionMode):
    """Computes linear layers of one input or one output elementwise: the compiler fuses that, unlike a product."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        layer = None if kwargs else _linear_layer(function, args)
        if not layer or 1 not in layer.weight.shape[-2:]:
            return function(*args, **(kwargs or {}))
        x, weight, bias = layer
        product = x * weight.mT if weight.shape[-1] == 1 else (x * weight).sum(-1, keepdim=True)
        return product if bias is None else product + bias  # (…, m)


class _LinearLayer(NamedTuple):
    """What a linear layer computes with, of one network or of several."""

    x: Tensor  # (…, k) or (networks, n, k)
    weight: Tensor  # (m, k) or (networks, m, k)
    bias: Tensor | None  # (m,) or (networks, 1, m)


def _linear_layer(function: Any, args: Any) -> _LinearLayer | None:
    """Return the linear layer that the function computes, if it is one; of several networks, as in ensemble.py."""
    if function is F.linear:
        return _LinearLayer(*(*args, None)[:3])
    if function is torch.baddbmm:
        bias, x, transposed = args
        return _LinearLayer(x, transposed.mT, bias)
    if function is Tensor.matmul and args[0].dim() == args[1].dim() == 3:
        x, transposed = args
        return _LinearLayer(x, transposed.mT, None)
    return None


class _Scalars(TorchFunctionMode):
    """Lets an optimizer compute with scalar tensors where it expects numbers: the learning rate, the step count."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        alpha, value = kwargs.get("alpha"), kwargs.get("value")
        if function is Tensor.item:
            return args[0]
        if function in (Tensor.add, Tensor.add_) and isinstance(alpha, Tensor):
            return function(args[0], args[1] * alpha)
        if function is Tensor.addcdiv_ and isinstance(value, Tensor):
            return args[0].add_(args[1] * value / args[2])
        if function is Tensor.addcmul_ and isinstance(value, Tensor):
            return args[0].add_(args[1] * value * args[2])
        return function(*args, **kwargs)


@contextmanager
def _is_compiling(flag: bool) -> Iterator[None]:
    before, torch.compiler._is_compiling_flag = torch.compiler._is_compiling_flag, flag
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def _undecorated(function: Any) -> Any:
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _number(scalar: Tensor) -> Any:
    """Return a tensor's value as a symbolic integer, with the bounds that the exporter needs."""
    number = aten._local_scalar_dense.default(scalar)
    torch._check(number >= 0)
    torch._check(number < 1 << 40)
    return number


def _rows(values: Tensor, first: Any, rows: int) -> Tensor:
    """Return that many rows of the values, (…, n, k), from the first on, without a check that there are as many."""
    width = values.shape[-1]
    shape = (*values.shape[:-2], rows, width)
    return aten.as_strided.default(values, shape, values.stride(), values.storage_offset() + first * width)


def _spread(vector: Tensor) -> Tensor:
    """Return the vector with gaps in memory.

    The compiler vectorizes over the contiguous dimension. The gaps make it choose the points, not the few neurons.
    """
    twice = vector[:, None].expand(-1, 2).clone(memory_format=torch.contiguous_format)
    return aten.as_strided.default(twice, vector.shape, (2,))
