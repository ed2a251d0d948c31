"""Portable kernels: what torch computes where CPUs have approximate instructions, or several code paths."""

import pytest
import torch

from tests.conftest import ENVIRONMENT, Copy, same_bytes

SHOW = """
import hashlib

import torch
from stages.runtime.params import StageParams as Params


def run(params):
    x = torch.arange(1, 20001) / 2**15
    y = x.flip(0)
    exact = {
        "add": lambda x, y: x + y,
        "subtract": lambda x, y: x - y,
        "multiply": lambda x, y: x * y,
        "divide": lambda x, y: x / y,
        "reciprocal": lambda x, y: x.reciprocal(),
        "square": lambda x, y: x.square(),
    }
    for name, operation in exact.items():  # rounded once: float64, rounded to float32, is what they must give
        assert torch.equal(operation(x, y), operation(x.double(), y.double()).float()), name
    root = x.sqrt()
    assert (root.view(torch.int32) - x.double().sqrt().float().view(torch.int32)).abs().max() <= 1
    values = [f(v) for v in (x, x.double()) for f in (torch.sqrt, torch.asin, torch.acos, torch.atan)]
    values.append(torch.nn.functional.gelu(x * 8 - 2))
    print(hashlib.sha256(b"".join(v.numpy().tobytes() for v in values)).hexdigest())
"""
# Of torch 2.13.0, on an AMD EPYC and, emulated, on an Intel Nehalem and another AMD EPYC.
DIGEST = "4d90b59b204034620be43a704dd310456f15f21e410ee08203bc3f2d95aeb3cb"


@same_bytes
def test_operations_round_right_and_roots_and_gelu_have_the_bits_of_every_cpu(copy: Copy) -> None:
    (copy.path / "stages/show").mkdir()
    (copy.path / "stages/show/stage.py").write_text(SHOW)
    assert copy.stage("show", MKL_VML_DEBUG_CPU_TYPE="3", ONEDNN_MAX_CPU_ISA="AVX2") == f"{DIGEST}\n"


PRODUCTS = """
import hashlib

import torch
from stages.runtime.params import StageParams as Params


def run(params):
    generator, values = torch.Generator().manual_seed(0), []
    for networks, n, k, m in [(2, 100, 1, 10), (10, 32, 8, 50), (20, 128, 50, 1), (10, 3000, 50, 50)]:
        shapes = [(networks, n, k), (networks, m, k), (networks, m)]
        x, weight, bias = leaves = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
        product = torch.baddbmm(bias[:, None], x, weight.mT)
        product.square().sum().backward()
        values += [product.detach(), *(leaf.grad for leaf in leaves)]
    print(hashlib.sha256(b"".join(v.numpy().tobytes() for v in values)).hexdigest())
"""
# Of torch 2.13.0, on an Intel Xeon and, emulated, on an Intel Nehalem, an Intel Haswell and an AMD EPYC.
DIGEST_OF_PRODUCTS = "15062d4ae5444f0354b33f956da7807bb0198ddebeb4c4ef9e4faa938b3018e0"


@same_bytes
@pytest.mark.parametrize("instructions", ["SSE4_2", "AVX2", "AVX512"])  # the newest that MKL may use on an Intel CPU
def test_products_of_several_networks_have_the_bits_of_every_cpu(copy: Copy, instructions: str) -> None:
    (copy.path / "stages/show").mkdir()
    (copy.path / "stages/show/stage.py").write_text(PRODUCTS)
    assert copy.stage("show", MKL_ENABLE_INSTRUCTIONS=instructions) == f"{DIGEST_OF_PRODUCTS}\n"


@same_bytes
def test_the_tests_compute_with_portable_kernels_and_start_processes_without() -> None:
    assert torch.backends.cpu.get_cpu_capability() == "DEFAULT"
    assert torch.get_num_threads() == 1
    assert "ATEN_CPU_CAPABILITY" not in ENVIRONMENT
