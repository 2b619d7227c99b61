"""Compile every GPU kernel for every GPU architecture, with or without a GPU, and tabulate what each occupies.

python -m fastdraw.kernels.compile        prints the table and writes docs/resources.md
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ..errors import FastdrawError
from ..files import write_atomically
from . import lstm

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "resources.md"
ARCHS = ("sm_80", "sm_90a", "sm_100")
TRITON_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16", "float64": "fp64"}
CUDA_DTYPES = {"float": "float32", "__nv_bfloat16": "bfloat16", "__half": "float16", "double": "float64"}


class TritonKernel(NamedTuple):
    """A Triton kernel with the constants and options that its launcher gives it at the paper's sizes."""

    function: Any
    constants: dict[str, int]
    options: dict[str, Any]


# The one list of Triton kernels; CUDA kernels are found by themselves, in csrc/cuda/*.cu.
LSTM_LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}
LSTM_TILE = lstm.block_shape(400, 512)
TRITON_KERNELS = (
    TritonKernel(lstm.lstm_gates_fwd_kernel, LSTM_TILE, LSTM_LAUNCH),
    TritonKernel(lstm.lstm_gates_bwd_kernel, LSTM_TILE, LSTM_LAUNCH),
)
CUDA_SOURCES = tuple(sorted((ROOT / "csrc" / "cuda").glob("*.cu")))


class Usage(NamedTuple):
    """What one compiled kernel occupies; `stack` is local memory in bytes per thread, where spilled registers go."""

    floor: str
    kernel: str
    variant: str
    dtype: str
    arch: str
    registers: int
    stack: int
    shared: int


def compile_triton(kernel: TritonKernel, dtype: str, arch: str) -> Usage:
    """Compile as for a call whose pointers, sizes and strides are multiples of 16, which is the common one."""
    names = kernel.function.arg_names
    signature = {
        name: "constexpr"
        if name in kernel.constants
        else "*" + TRITON_DTYPES[dtype]
        if name.endswith("_ptr")
        else "i32"
        for name in names
    }
    multiples_of_16 = {
        (position,): [["tt.divisibility", 16]] for position, name in enumerate(names) if signature[name] != "constexpr"
    }
    compiled = triton.compile(
        ASTSource(kernel.function, signature, kernel.constants, multiples_of_16),
        target=GPUTarget("cuda", int(re.sub(r"\D", "", arch)), 32),
        options=kernel.options,
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        report = run(triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin.name)
    registers, stack, local = (int(find(rf"\b{name}:(\d+)", report)[0]) for name in ("REG", "STACK", "LOCAL"))
    variant = ", ".join(f"{name} {value}" for name, value in kernel.constants.items())
    name = kernel.function.__name__
    return Usage("Triton", name, variant, dtype, arch, registers, stack + local, compiled.metadata.shared)


def compile_cuda(source: Path, arch: str) -> list[Usage]:
    """Compile all instances of all kernels of a .cu file."""
    with tempfile.TemporaryDirectory() as folder:
        report = run(
            require_nvcc(), "-std=c++20", "-O3", "-cubin", f"-arch={arch}", "-Xptxas=-v", f"-I{ROOT / 'csrc'}",
            "-o", f"{folder}/kernels.cubin", str(source),
        )  # fmt: skip
    return [read_ptxas(chunk, arch) for chunk in run("c++filt", stdin=report).split("Compiling entry function")[1:]]


def read_ptxas(report: str, arch: str) -> Usage:
    """What `ptxas -v` says about one kernel: `name<dtype, constants...>(...)` and the lines below it."""
    kernel, arguments = find(r"(\w+)<([^>]*)>\(", report)
    dtype, *constants = arguments.split(", ")
    stack, registers, shared = (
        sum(map(int, re.findall(pattern, report)))
        for pattern in (r"(\d+) bytes stack frame", r"Used (\d+) registers", r"(\d+) bytes smem")
    )
    return Usage(
        "CUDA", kernel, f"<{', '.join(['T', *constants])}>", CUDA_DTYPES[dtype], arch, registers, stack, shared
    )


def compile_all() -> list[Usage]:
    """Every kernel, dtype and architecture, in the order of the table."""
    usages = [
        compile_triton(kernel, dtype, arch) for kernel in TRITON_KERNELS for dtype in TRITON_DTYPES for arch in ARCHS
    ]
    usages += sorted(usage for source in CUDA_SOURCES for arch in ARCHS for usage in compile_cuda(source, arch))
    return usages


def table(usages: Iterable[Usage]) -> str:
    """One row per kernel, variant and dtype; one column per architecture."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    for usage in usages:
        row = rows.setdefault((usage.floor, f"`{usage.kernel}`", f"`{usage.variant}`", usage.dtype), {})
        row[usage.arch] = f"{usage.registers} / {usage.stack} / {usage.shared}"
    head = ("floor", "kernel", "variant", "dtype", *ARCHS)
    lines = [head, ["---"] * len(head), *([*key, *(row[arch] for arch in ARCHS)] for key, row in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(usages: Iterable[Usage]) -> str:
    (nvcc_version,) = find(r"V([\d.]+)", run(require_nvcc(), "--version"))
    return f"""# What the GPU kernels occupy

Written by `python -m fastdraw.kernels.compile` with Triton {triton.__version__} and nvcc {nvcc_version}.
The kernels were compiled, not run; no GPU is needed for it. Each cell: registers per thread / bytes of local memory
per thread (0: nothing spills) / bytes of shared memory per block.

{table(usages)}
"""


def nvcc() -> str | None:
    """Where nvcc is, if anywhere."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc", path=f"{home}/bin") or shutil.which("nvcc")


def require_nvcc() -> str:
    path = nvcc()
    if path is None:
        raise FastdrawError("no nvcc was found: install a CUDA toolkit or set CUDA_HOME to one")
    return path


def find(pattern: str, report: str) -> tuple[str, ...]:
    """The groups of the first match; a tool that reports in other words than expected is an error."""
    match = re.search(pattern, report)
    if match is None:
        raise FastdrawError(f"expected {pattern!r} in a tool's report, got:\n{report}")
    return match.groups()


def run(*command: str, stdin: str | None = None) -> str:
    """What a tool prints, stdout and stderr together."""
    done = subprocess.run(
        command, input=stdin, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        raise FastdrawError(f"{Path(command[0]).name} failed with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def main() -> None:
    if triton.knobs.runtime.interpret:
        raise FastdrawError("Triton compiles nothing while TRITON_INTERPRET=1 is set: unset it")
    if not CUDA_SOURCES:
        raise FastdrawError(
            "no csrc/cuda beside the kernels: run this from fastdraw's source folder, installed with -e"
        )
    text = page(compile_all())
    print(text)
    PAGE.parent.mkdir(exist_ok=True)
    write_atomically(PAGE, text.encode())


if __name__ == "__main__":
    try:
        main()
    except FastdrawError as error:
        sys.exit(f"fastdraw: error: {error}")
