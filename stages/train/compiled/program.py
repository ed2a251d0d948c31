"""Write training.h, which loop.cpp includes: the gradient of one network at a block of points, and a step."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from stages.train.compiled.graph import Node, Recorder, count_uses
from stages.train.compiled.indexing import indices, loops, position
from stages.train.compiled.source import PADDING, Source, lanes, outer_product
from stages.train.compiled.vectors import LANES, padded
from stages.train.loss import loss_of_rows

NARROW = 4  # columns: from here on, points are kept as rows, too, and outer products are matrix products
BRANCHING = ("ASGD", "RAdam", "Rprop")  # these branch in Python on a number that changes, except under torch.compile


class Recipe(NamedTuple):
    """What is trained: all that the code depends on."""

    net: nn.Module
    learning: Mapping[str, Tensor]  # the parameters of one network that have a gradient, by name
    fixed: Mapping[str, Tensor]  # its buffers and other parameters
    loss_function: nn.Module
    optimizer: str
    options: Mapping[str, Any]  # of the optimizer, all but its learning rate
    state: Mapping[str, bool]  # what the optimizer keeps for each parameter: whether that is a scalar
    n_feature: int
    n_output: int

    @property
    def padded_size(self) -> int:
        """Return how many floats the parameters of a network have in memory."""
        return padded(sum(map(Tensor.numel, self.learning.values())))


def write_header(recipe: Recipe) -> str:
    """Return training.h. Raises UnsupportedError for operators that cannot be written in C++."""
    gradient, sums = _add_gradients(recipe)
    return f"""\
constexpr int64_t PARAMETERS = {recipe.padded_size}, GRADIENT = PARAMETERS + LANES, SUMS = {sums.floats};
constexpr int SCALARS = {sum(recipe.state.values())};
constexpr int64_t TEMPORARY = {gradient.floats};

static void add_gradients(const Points& points, int64_t from, int64_t to, const float* __restrict parameters,
                          const float* __restrict fixed, float* __restrict work, float* __restrict sums) {{
{_lines(gradient.once)}
    for (int64_t block = from; block < to; ++block) {{
{_lines(gradient.block)}
    }}
}}

static void collect(const float* sums, float* gradient) {{
{_lines(sums.block)}
}}

{_take_step(recipe)}"""


def _add_gradients(recipe: Recipe) -> tuple[Source, Source]:
    """Return the code that adds up gradients and losses, and that which collects the sums."""
    loss, gradients, recorded = _recorded_gradients(recipe)
    count_uses([*gradients, loss])
    source, sums = Source(), Source()
    source.block += ["int64_t rows[LANES]; float weights[LANES];", "points.locate(block, rows, weights);"]
    for name, columns in (("x", recipe.n_feature), ("y", recipe.n_output)):
        source.block.append(f"float* __restrict const {name} = {source.memory(columns * LANES)};")
        if columns < NARROW:
            source.block.append(f"gather<{columns}, 1, LANES>({name}, points.{name}, rows);")
            continue
        rows = source.transposed[name] = f"{name}_rows"
        source.block += [
            f"float* __restrict const {rows} = {source.memory((columns + PADDING) * LANES)};",
            f"gather<{columns}, padded({columns}), 1>({rows}, points.{name}, rows);",
            f"rows_to_values<{columns}>({name}, {rows});",
        ]
    for node in recorded:  # one after the other, since Python does not recurse deeply enough for many layers
        if node.uses > 1 and node.varies and node.dtype == torch.float32:
            source.vector(node)
    begin = 0
    for node in gradients:
        _add_up(source, sums, node, f"gradient + {begin}")
        begin += node.size
    _add_up(source, sums, loss, "gradient + PARAMETERS")
    return source, sums


def _add_up(source: Source, sums: Source, node: Node, total: str) -> None:
    """Write what adds a node to sums over the points, and these to a total."""
    begin, factors = sums.floats, outer_product(node)
    if factors and min(factor.size for factor in factors) >= NARROW:
        (column, row), sizes = factors, ", ".join(str(factor.size) for factor in factors)
        sums.memory(-(-column.size * (row.size + PADDING) // LANES) * LANES)
        factors_in_cpp = f"{source.vector(column)}, {source.rows(row)}"
        source.block.append(f"add_outer_products<{sizes}>(sums + {begin}, {factors_in_cpp});")
        sums.block.append(f"add_rows<{sizes}>({total}, sums + {begin});")
        return
    sums.memory(node.size * LANES)
    lines, index = list[str](), indices(node.shape)
    value = source.value(node, index, lines, node.size)
    lines.append(f"sums[{begin} + {position(index, node.shape)} * LANES + r] += {value};")
    source.block.append(loops(index, node.shape, lanes(*lines)))
    sums.block.append(f"add_lanes<{node.size}>({total}, sums + {begin});")


def _recorded_gradients(recipe: Recipe) -> tuple[Node, list[Node], list[Node]]:
    """Return the weighted loss of a point, its gradient with respect to each parameter, and all that was computed."""
    recorder, of_rows = Recorder(), loss_of_rows(recipe.loss_function)

    def inputs(array: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        named, begin = {}, 0
        for name, values in tensors.items():
            named[name] = recorder.input(f"({array} + {begin})", values.detach().clone(), varies=False)
            begin += values.numel()
        return named

    learning, fixed = inputs("parameters", recipe.learning), inputs("fixed", recipe.fixed)
    x, y, weight = (
        recorder.input(name, torch.ones(1, width), varies=True)
        for name, width in (("x", recipe.n_feature), ("y", recipe.n_output), ("weights", 1))
    )
    with recorder, torch.enable_grad():
        for values in learning.values():
            values.requires_grad_()
        prediction = functional_call(recipe.net, learning | fixed, (x,))  # (1, n_output)
        loss = (of_rows(prediction, y) * weight).sum()
        gradients = torch.autograd.grad(loss, list(learning.values()))
    return recorder.node(loss), [recorder.node(values) for values in gradients], list(recorder.nodes.values())


def _take_step(recipe: Recipe) -> str:
    """Return the function that takes a step of the optimizer, for some blocks of parameters."""
    source = Source()
    names = ["parameters", *(name for name, scalar in recipe.state.items() if not scalar)]
    after = _recorded_step(recipe, names)
    count_uses(list(after.values()))
    arrays = {name: source.array(node) for name, node in after.items()}
    scalars = [name for name, scalar in recipe.state.items() if scalar]
    # Rounded as the optimizer's own are, so that it does not matter when they are saved.
    source.once += [f"after[{k}] = float({arrays[name]}[0]);" for k, name in enumerate(scalars)]
    for k, name in enumerate(names):
        source.block.append(lanes(f"values{k}[r] = {arrays[name]}[{'r' if after[name].varies else 0}];"))
    return f"""\
static void take_step(double rate_now, const float* gradients, float* parameters, int64_t stride, const double* scalars,
                   double* after, int64_t from, int64_t to) {{
    const double* rate = &rate_now;
{_lines(source.once)}
    for (int64_t block = from; block < to; ++block) {{
        const float* __restrict const gradient = gradients + block * LANES;
{_lines(f"float* __restrict const values{k} = parameters + {k} * stride + block * LANES;" for k in range(len(names)))}
{_lines(source.block)}
    }}
}}
"""


def _recorded_step(recipe: Recipe, names: Sequence[str]) -> dict[str, Node]:
    """Return what a step of the optimizer does to a single parameter: that parameter after it, and each state."""
    recorder = Recorder()
    arrays = {name: recorder.input(f"values{k}", torch.ones(1), varies=True) for k, name in enumerate(names)}
    scalars = [name for name, scalar in recipe.state.items() if scalar]
    double = torch.ones((), dtype=torch.float64)  # as precise as Python's numbers
    arrays |= {name: recorder.input(f"(scalars + {k})", double.clone(), varies=False) for k, name in enumerate(scalars)}
    parameter = arrays["parameters"]
    parameter.grad = recorder.input("gradient", torch.ones(1), varies=True)
    optimizer = getattr(torch.optim, recipe.optimizer)([parameter])
    branching = recipe.optimizer in BRANCHING
    plain = {"foreach": False, "fused": False, "capturable": branching}
    rate = recorder.input("rate", double.clone(), varies=False)
    optimizer.param_groups[0].update(recipe.options, lr=rate, **plain)
    own = optimizer.state[parameter]
    own.update({name: arrays[name] for name in recipe.state})
    with recorder, torch.no_grad(), _Scalars(), _is_compiling(branching):
        _undecorated(type(optimizer).step)(optimizer)
    return {name: recorder.node(parameter if name == "parameters" else own[name]) for name in arrays}


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


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(f"        {line}" for line in lines)
