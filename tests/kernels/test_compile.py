"""Every GPU kernel compiles for every GPU architecture without spilling a register; no GPU is needed."""

import ast
import os
import re

import pytest

from fastdraw.kernels import compile as kernels_compile
from fastdraw.kernels import lstm

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="Triton compiles nothing while its interpreter is on"
)
TRITON_NAMES = [kernel.function.__name__ for kernel in kernels_compile.TRITON_KERNELS]


def kernels_in(path, pattern):
    return set(re.findall(pattern, path.read_text()))


@pytest.mark.parametrize("arch", kernels_compile.ARCHS)
@pytest.mark.parametrize("dtype", kernels_compile.TRITON_DTYPES)
@pytest.mark.parametrize("kernel", kernels_compile.TRITON_KERNELS, ids=TRITON_NAMES)
def test_triton_kernel_compiles_without_spills(kernel, dtype, arch):
    usage = kernels_compile.compile_triton(kernel, dtype, arch)
    assert 0 < usage.registers <= 255
    assert usage.stack == 0


@pytest.mark.skipif(kernels_compile.nvcc() is None, reason="no nvcc")
@pytest.mark.parametrize("arch", kernels_compile.ARCHS)
@pytest.mark.parametrize("source", kernels_compile.CUDA_SOURCES, ids=lambda source: source.name)
def test_cuda_kernels_compile_without_spills(source, arch):
    usages = kernels_compile.compile_cuda(source, arch)
    expected = {
        (name, dtype)
        for name in kernels_in(source, r"\b(\w+_kernel)\(")
        for dtype in kernels_compile.CUDA_DTYPES.values()
    }
    assert {(usage.kernel, usage.dtype) for usage in usages} == expected
    assert all(0 < usage.registers <= 255 for usage in usages)
    assert [usage for usage in usages if usage.stack != 0] == []


def test_every_triton_kernel_is_compiled():
    modules = (kernels_compile.ROOT / "kernels").glob("*.py")
    functions = [
        node for path in modules for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    ]
    assert sorted(f.name for f in functions if f.decorator_list and f.name.endswith("_kernel")) == sorted(TRITON_NAMES)


def test_page_lists_every_kernel():
    cuda = {
        ("CUDA", name, dtype)
        for source in kernels_compile.CUDA_SOURCES
        for name in kernels_in(source, r"\b(\w+_kernel)\(")
        for dtype in kernels_compile.CUDA_DTYPES.values()
    }
    triton = {("Triton", name, dtype) for name in TRITON_NAMES for dtype in kernels_compile.TRITON_DTYPES}
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| `[^`]*` \| (\w+) \|", kernels_compile.PAGE.read_text(), re.MULTILINE)
    assert cuda | triton == set(rows), "run `python -m fastdraw.kernels.compile`"


@pytest.mark.parametrize("U", [1, 2, 3, 63, 64, 65, 400, 2**14])
@pytest.mark.parametrize("B", [1, 7, 8, 9, 513])
def test_lstm_tiles_cover_the_batch_once(B, U):
    blocks = lstm.block_shape(U, 512)
    block_b, block_u = blocks.values()
    assert block_b * block_u == 512
    assert block_u & (block_u - 1) == 0
    (programs,) = lstm.grid_size(B, U, **blocks)
    corners = {(p // -(-U // block_u) * block_b, p % -(-U // block_u) * block_u) for p in range(programs)}
    assert corners == {(b, u) for b in range(0, B, block_b) for u in range(0, U, block_u)}
