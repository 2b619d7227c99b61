"""Compile every GPU kernel for every GPU architecture, with or without a GPU, and tabulate what each occupies.

python -m fastdraw.kernels.compile        prints the table and writes docs/resources.md
"""

import itertools
import multiprocessing
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.compiler import ASTSource

from .. import extension
from ..errors import FastdrawError
from ..files import write_atomically
from .recording import ROLLOUTS, Launch, launches, launches_per_step, operators, target

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "resources.md"
ARCHS = ("sm_80", "sm_90a", "sm_100")
DTYPES = ("float32", "bfloat16", "float16", "float64")
FLOAT_ATOMIC_TTIR = re.compile(r"\batomic_rmw f\w+|\batomic_cas\b.*f\d+")
FLOAT_ATOMIC_PTX = re.compile(r"\b(?:atom|red)\.[\w.:]*\.b?f\d+[\w.]*")
CUDA_DTYPES = {"float": "float32", "__nv_bfloat16": "bfloat16", "__half": "float16", "double": "float64"}


SYSTEM_SHARED = 1024  # bytes of a block that the system takes from sm_90 on, and cuobjdump counts


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
    float_atomics: tuple[str, ...] = ()  # instructions whose order, and with it the sum, differs from run to run


class LaunchesPerStep(NamedTuple):
    """What one more step of a rollout costs in launches: of Triton kernels, of torch's products, of others of its."""

    op: str
    direction: str
    triton: int
    products: int
    others: int


def compile_triton(op: str, dtype: str, arch: str) -> list[Usage]:
    """Compile all that an op launches, as Triton would for its calls at the published sizes."""
    try:
        found = launches(op, getattr(torch, dtype), arch)
        return [measure(launch, build(launch, arch), dtype, arch) for launch in found]
    except Exception as error:  # of many kinds, not all of which can travel between processes
        raise FastdrawError(f"{op} in {dtype} for {arch}: {type(error).__name__}: {error}") from None


def build(launch: Launch, arch: str) -> triton.compiler.CompiledKernel:
    source = ASTSource(launch.kernel, launch.signature, launch.constants, launch.attributes)
    return triton.compile(source, target=target(arch), options=launch.options)


def measure(launch: Launch, compiled: triton.compiler.CompiledKernel, dtype: str, arch: str) -> Usage:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(compiled.asm["cubin"])
        cubin.flush()
        report = run(triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", cubin.name)
    registers, stack, local = (int(find(rf"\b{name}:(\d+)", report)[0]) for name in ("REG", "STACK", "LOCAL"))
    atomics = *FLOAT_ATOMIC_TTIR.findall(compiled.asm["ttir"]), *FLOAT_ATOMIC_PTX.findall(compiled.asm["ptx"])
    name, shared = launch.kernel.__name__, compiled.metadata.shared
    return Usage("Triton", name, launch.variant, dtype, arch, registers, stack + local, shared, atomics)


def cuda_usages() -> list[Usage]:
    """Of all kernels in CUDA C++, as the extension was built with them: of every architecture that it has code for."""
    if not extension.has_cuda():
        raise FastdrawError("the extension holds no CUDA kernels: build it where there is nvcc")
    report = run(triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(extension.LIBRARY))
    chunks = run("c++filt", stdin=report).split("Fatbin elf code:")[1:]
    return sorted(usage for chunk in chunks for usage in read_usages(chunk))


def read_usages(report: str) -> list[Usage]:
    """What cuobjdump says of one architecture: ` Function void NAME<DTYPE, CONSTANTS...>(...):`, then its figures."""
    (arch,) = find(r"arch = (\w+)", report)
    found = []
    for function in report.split(" Function ")[1:]:
        kernel, arguments, registers, stack, shared, local = find(
            r"(\w+)<([^>]*)>\(.*\n\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", function
        )
        dtype, *constants = arguments.split(", ")
        variant, memory = f"<{', '.join(['T', *constants])}>", int(stack) + int(local)
        static = max(0, int(shared) - (0 if arch == "sm_80" else SYSTEM_SHARED))
        found.append(Usage("CUDA", kernel, variant, CUDA_DTYPES[dtype], arch, int(registers), memory, static))
    return found


def processes() -> ProcessPoolExecutor:
    """One for each core; spawned, since torch's threads do not survive a fork."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,))


def compile_all() -> list[Usage]:
    """Every kernel, dtype and architecture, in the order of the table."""
    from tqdm import tqdm  # the GPU's tests need what is above alone

    with processes() as pool:
        jobs = [pool.submit(compile_triton, *job) for job in itertools.product(operators(), DTYPES, ARCHS)]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), unit="op", disable=None):
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    # Ops share kernels.
    return [*dict.fromkeys(usage for job in jobs for usage in job.result()), *cuda_usages()]


def count_all() -> list[LaunchesPerStep]:
    return [
        LaunchesPerStep(op, direction, counts["triton"], counts["products"], counts["others"])
        for op in operators()
        if op in ROLLOUTS
        for direction, counts in launches_per_step(op, ARCHS[-1]).items()
    ]


def table(usages: Iterable[Usage]) -> str:
    """One row per kernel, variant and dtype; one column per architecture."""
    rows: dict[tuple[str, ...], dict[str, tuple[int, ...]]] = {}
    for usage in usages:
        cells = rows.setdefault((usage.floor, f"`{usage.kernel}`", f"`{usage.variant}`", usage.dtype), {})
        figures = usage.registers, usage.stack, usage.shared
        # Launches that differ in strides or alignment alone share a row: the most that any of them takes.
        cells[usage.arch] = tuple(map(max, figures, cells.get(usage.arch, figures)))
    head = ("floor", "kernel", "variant", "dtype", *ARCHS)
    return markdown(
        head, [[*key, *(" / ".join(map(str, cells.get(arch, "-"))) for arch in ARCHS)] for key, cells in rows.items()]
    )


def spill_lines(usages: Iterable[Usage]) -> str:
    """How many of the compiled kernels spill, and the worst of each."""
    usages = list(usages)
    worst: dict[tuple[str, str], int] = {}
    for usage in usages:
        if usage.stack:
            key = usage.kernel, usage.dtype
            worst[key] = max(worst.get(key, 0), usage.stack)
    spilling = sum(usage.stack > 0 for usage in usages)
    listed = ", ".join(f"`{kernel}` in {dtype} ({stack} bytes)" for (kernel, dtype), stack in sorted(worst.items()))
    return f"Of {len(usages)} compilations {spilling} use local memory, at most: {listed or 'none'}."


def launch_table(counts: Iterable[LaunchesPerStep]) -> str:
    """One row per rollout and direction."""
    head = ("op", "pass", "Triton kernels", "products by torch", "other kernels of torch", "launches per step")
    return markdown(head, [[f"`{op}`", *map(str, (name, *numbers, sum(numbers)))] for op, name, *numbers in counts])


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def page(usages: Sequence[Usage], counts: Sequence[LaunchesPerStep]) -> str:
    nvcc_version = extension.build_info()["nvcc"]
    per_step = f"""
## Launches per step

What one more step adds to a rollout in float32: counted, not timed, as the difference between rollouts of 3 and of 2
steps.

{launch_table(counts)}
"""
    return f"""# What the GPU kernels occupy

Written by `python -m fastdraw.kernels.compile` with Triton {triton.__version__} and nvcc {nvcc_version}.
The kernels were compiled, not run; no GPU is needed for it. Kernels in CUDA C++ are those of the built extension. A
Triton kernel is compiled for every launch that its ops make at the sizes of paper 000 (`fastdraw/published.py`), with
the configuration of each architecture. Each cell:
registers per thread / bytes of local memory per thread (0: nothing spills) / bytes of shared memory per block.
{per_step if counts else ""}
## Registers, spills and shared memory

{spill_lines(usages)}

{table(usages)}
"""


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
    if not (ROOT / "csrc").exists():
        raise FastdrawError("no csrc beside the kernels: run this from fastdraw's source folder, installed with -e")
    missing = set(ARCHS) - {usage.arch for usage in cuda_usages()}
    if missing:
        raise FastdrawError(
            f"the extension has no CUDA kernels for {', '.join(sorted(missing))}: build it without TORCH_CUDA_ARCH_LIST"
        )
    text = page(compile_all(), count_all())
    print(text)
    PAGE.parent.mkdir(exist_ok=True)
    write_atomically(PAGE, text.encode())


if __name__ == "__main__":
    try:
        main()
    except FastdrawError as error:
        sys.exit(f"fastdraw: error: {error}")
