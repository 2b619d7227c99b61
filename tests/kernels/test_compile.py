"""Every GPU kernel compiles for every architecture and spills no more than docs/resources.md says; no GPU is needed."""

import ast
import itertools
import re

import pytest
import torch
import triton

from fastdraw import dispatch, extension
from fastdraw.kernels import compile as kernels_compile
from fastdraw.kernels import configs, lstm
from fastdraw.kernels.recording import PASSES, ROLLOUTS, launches, operators

pytestmark = pytest.mark.skipif(
    dispatch.forced() is not None or triton.knobs.runtime.interpret,
    reason="Triton's interpreter compiles nothing, and what kernels occupy is the same for every backend",
)
ARCHS, DTYPES = kernels_compile.ARCHS, kernels_compile.DTYPES
# Each dtype and each architecture once, since all pairs take ten minutes: the page has them, and its spills are tested.
COMPILED_HERE = [("float32", "sm_90a"), ("bfloat16", "sm_100"), ("float16", "sm_80"), ("float64", "sm_90a")]
PAGE = kernels_compile.PAGE.read_text()


def cuda_kernels():
    """Names and dtypes of the kernels in csrc/cuda: INSTANTIATE(T) stands at the end of a file for every T."""
    found = set()
    for source in (kernels_compile.ROOT / "csrc" / "cuda").glob("*.cu"):
        text = source.read_text()
        dtypes = [kernels_compile.CUDA_DTYPES[T] for T in re.findall(r"^INSTANTIATE\((\w+)\)$", text, re.MULTILINE)]
        found |= set(itertools.product(re.findall(r"\b(\w+_kernel)\(", text), dtypes))
    return found


@pytest.fixture(scope="module")
def compiled(request):
    """What `compile_triton` returns for an op, dtype and architecture: those that a test asks for, on all cores."""
    asked = [test.callspec.params for test in request.session.items if "compiled" in test.fixturenames]
    with kernels_compile.processes() as pool:
        jobs = [(test["op"], test["dtype"], test["arch"]) for test in asked]
        yield {job: pool.submit(kernels_compile.compile_triton, *job) for job in jobs}
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def spilled():
    """Bytes of local memory by kernel, variant, dtype and architecture, as the page has them."""
    rows = re.findall(r"^\| Triton \| `(\w+)` \| `([^`]*)` \| (\w+) \| (.*) \|$", PAGE, re.MULTILINE)
    return {
        (*key, arch): int(cell.split(" / ")[1])
        for *key, cells in rows
        for arch, cell in zip(ARCHS, cells.split(" | "), strict=True)
        if cell != "-"
    }


@pytest.mark.parametrize(("dtype", "arch"), COMPILED_HERE)
@pytest.mark.parametrize("op", operators())
def test_triton_kernels_spill_no_more_than_the_page_says_and_have_no_float_atomics(compiled, spilled, op, dtype, arch):
    usages = compiled[op, dtype, arch].result()
    assert usages
    assert all(0 < usage.registers <= 255 for usage in usages)
    known = [spilled.get((usage.kernel, usage.variant, usage.dtype, usage.arch), 0) for usage in usages]
    assert [usage for usage, bytes in zip(usages, known, strict=True) if usage.stack > bytes] == []
    assert [usage for usage in usages if usage.float_atomics] == []


@pytest.mark.skipif(not extension.has_cuda(), reason="the extension was built without CUDA")
def test_cuda_kernels_of_the_extension_spill_nothing():
    usages = kernels_compile.cuda_usages()
    for arch in {usage.arch for usage in usages}:
        assert {(usage.kernel, usage.dtype) for usage in usages if usage.arch == arch} == cuda_kernels()
    assert all(0 < usage.registers <= 255 for usage in usages)
    assert [usage for usage in usages if usage.stack != 0] == []


@pytest.fixture(scope="module")
def recorded():
    """All launches of float32 on sm_80."""
    return [launch for op in operators() for launch in launches(op, torch.float32, "sm_80")]


def test_every_triton_kernel_is_compiled(recorded):
    modules = (kernels_compile.ROOT / "kernels").glob("*.py")
    functions = [
        node for path in modules for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    ]
    written = {f.name for f in functions if f.decorator_list and f.name.endswith("_kernel")}
    assert written == {launch.kernel.__name__ for launch in recorded}


def test_page_lists_every_kernel():
    cuda = {("CUDA", *kernel) for kernel in cuda_kernels()}
    differing = {id(configs.of(arch)): arch for arch in ARCHS}.values()
    triton = {
        ("Triton", launch.kernel.__name__, launch.variant, dtype)
        for op, dtype, arch in itertools.product(operators(), DTYPES, differing)
        for launch in launches(op, getattr(torch, dtype), arch)
    }
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| `([^`]*)` \| (\w+) \|", PAGE, re.MULTILINE)
    listed = {(floor, name, dtype) for floor, name, _, dtype in rows if floor == "CUDA"}
    assert cuda == listed, "run `python -m fastdraw.kernels.compile`"
    assert triton == {row for row in rows if row[0] == "Triton"}, "run `python -m fastdraw.kernels.compile`"


def test_page_has_no_large_spills(spilled):
    """A few bytes of a thread stay in the L1 cache; ptxas prefers them to a block less per multiprocessor."""
    assert spilled
    assert max(spilled.values()) <= 128


def test_page_has_launches_per_step_of_every_rollout():
    rollouts = [op for op in operators() if op in ROLLOUTS]
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert {(op, name) for op, name, *_ in rows} == {(op, name) for op in rollouts for name in PASSES}


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
