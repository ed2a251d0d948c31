"""Compile the loop of loop.py to a shared library by torch's compiler, Inductor."""

import os
import re
import shlex
from typing import Any

import torch
from torch import Tensor, _inductor, nn
from torch._inductor import cpp_builder, ir
from torch._inductor.codegen.common import register_backend_for_device
from torch._inductor.codegen.cpp import CppScheduling
from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu
from torch._inductor.codegen.wrapper import PythonWrapperCodegen

from stages.train.compiled.loop import loop_over_steps
from stages.train.compiled.recipe import Recipe, fixed_tensors

OPTIONS: dict[str, Any] = {
    "pattern_matcher": False,  # it fuses a matrix product with the carried parameters wrongly: nan
    "force_pointwise_cat": True,
    "realize_reads_threshold": 100,  # compute elementwise values again wherever they are used, rather than store them:
    "realize_opcount_threshold": 10_000,  # a quarter of the time of a step of the lesson
    "allow_buffer_reuse": False,  # LeanLoop's temporary memory is its own
    "inplace_buffers": False,
    "compile_threads": 1,
    "cpp.vec_isa_ok": True,  # else it compiles a test for each instruction set, which takes longer than the loop
    "aot_inductor.precompile_headers": False,  # for a single file that takes longer
    "cpp_cache_precompile_headers": False,
}


class LeanLoop(CppWrapperCpu):
    """Writes C++ whose loop allocates its temporary memory once and copies no handles: twice as fast for the lesson."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: set[str] = set()  # what is not freed in the loop

    @staticmethod
    def create(*_: Any) -> "LeanLoop":
        """Return one for the whole program, the loop's body included."""
        return LeanLoop()

    def codegen_subgraph_prefix(self, subgraph: Any, outer_inputs: Any, outer_outputs: Any) -> None:
        """Refer to the inputs of a body rather than copy their handles."""
        for (name, value), outer in zip(subgraph.graph.graph_inputs.items(), outer_inputs, strict=True):
            if isinstance(value, ir.TensorBox):
                self.writeline(f"ConstantHandle {name}(static_cast<AtenTensorHandle>({outer}));")
                self.kept.add(name)

    def make_allocation(self, name: str, device: Any, dtype: Any, shape: Any, stride: Any, *args: Any) -> str:
        """Allocate what a body does not return in the first round of the loop only."""
        if "while_loop" not in name or name in self.get_codegened_graph().get_output_names():
            return super().make_allocation(name, device, dtype, shape, stride, *args)
        self.kept.add(name)
        sizes, strides = (", ".join([*map(str, numbers), "0"]) for numbers in (shape, stride))
        kind = f"{self.codegen_dtype(dtype)}, {self.codegen_device(device)}"
        return (
            f"static thread_local RAIIAtenTensorHandle {name}([] {{ AtenTensorHandle handle; "
            f"const int64_t sizes[] = {{{sizes}}}, strides[] = {{{strides}}}; AOTI_TORCH_ERROR_CODE_CHECK("
            f"aoti_torch_empty_strided({len(shape)}, sizes, strides, {kind}, &handle)); return handle; }}());"
        )

    def make_buffer_free(self, buffer: Any) -> str:
        """Return the code that frees a buffer."""
        return "" if buffer.get_name() in self.kept else super().make_buffer_free(buffer)

    def make_free_by_names(self, names_to_del: list[str]) -> str:
        """Return the code that frees buffers."""
        return super().make_free_by_names([name for name in names_to_del if name not in self.kept])


def compile_loop(recipe: Recipe, threads: int, folder: str) -> str:
    """Compile the recipe's loop for that many threads, in a folder; return the path of the library in it."""
    torch.set_num_threads(threads)
    _quote_paths(folder)
    register_backend_for_device("cpu", CppScheduling, PythonWrapperCodegen, LeanLoop)

    class Loop(nn.Module):
        def forward(self, *arguments: Tensor) -> Tensor:
            return loop(*arguments)

    loop = loop_over_steps(recipe)
    example, dynamic = _example(recipe)
    program = torch.export.export(Loop(), example, dynamic_shapes=(dynamic,), strict=False)
    return str(_inductor.aot_compile(program.module(), example, options=OPTIONS))


def _quote_paths(folder: str) -> None:
    """Have torch quote the paths in a command of the C++ compiler that it leaves as they are; they may have spaces."""
    if os.name == "nt":  # it quotes them there
        return
    run, library_folders = cpp_builder._run_compile_cmd, cpp_builder.BuildOptionsBase.get_libraries_dirs

    def quoted(cmd_line: str, cwd: str) -> None:
        for path in (folder, cpp_builder.get_cpp_compiler()):
            cmd_line = re.sub(rf"(?:^|(?<= )){re.escape(path)}", lambda path: shlex.quote(path.group()), cmd_line)
        run(cmd_line, cwd)

    cpp_builder._run_compile_cmd = quoted
    cpp_builder.BuildOptionsBase.get_libraries_dirs = lambda self: [  # type: ignore[method-assign]
        shlex.quote(path) for path in library_folders(self)
    ]


def _example(recipe: Recipe) -> tuple[tuple[Tensor, ...], tuple[dict[int, Any], ...]]:
    """Return arguments of the loop, and which of their sizes may be others: the number of steps, and of points."""
    # For n = rows, the exporter would find that a micro-batch of each network's own points is contiguous. The code for
    # larger n computes it as well.
    fewest = recipe.rows + len(recipe.leading)
    k, n = torch.export.Dim("k", min=1, max=1 << 20), torch.export.Dim("n", min=fewest, max=1 << 40)
    size = sum(map(Tensor.numel, recipe.parameters().values()))
    state = [torch.ones(()) if scalar else torch.ones(size) for scalar in recipe.state.values()]
    fixed = fixed_tensors(recipe.net, recipe.learning).values()
    steps, rates = torch.zeros(8, 3, dtype=torch.int64), torch.zeros(8, 2, dtype=torch.float64)
    x, y = (torch.ones(*recipe.leading, 2 * recipe.rows + 1, width) for width in (recipe.n_feature, recipe.n_output))
    losses = torch.zeros(8, *recipe.each)
    values = losses, torch.zeros(size + losses[0].numel()), torch.ones(size), *state, *fixed, steps, rates, x, y
    points = {len(recipe.leading): n}
    return values, ({0: k}, *({} for _ in values[1:-4]), {0: k}, {0: k}, points, points)
