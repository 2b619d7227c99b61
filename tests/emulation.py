"""The CUDA kernels compiled for the host, on which the backend "cuda" then runs CPU tensors (csrc/cuda/block.h).

python -m tests.emulation tests/ops        builds what has changed, and runs pytest on that backend
"""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils import cpp_extension

from fastdraw.errors import FastdrawError
from fastdraw.kernels.compile import ROOT, run

SOURCES = [ROOT / "tests" / "emulation.cpp", ROOT / "csrc" / "ops.cpp"]
SOURCES += sorted([*(ROOT / "csrc" / "cuda").glob("*.cu"), *(ROOT / "csrc" / "cuda" / "bindings").glob("*.cpp")])
HEADERS = sorted((ROOT / "csrc").rglob("*.h"))
# A GPU stops at an access that is not aligned, and the host shall too.
ALIGNMENT = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
DEFINES = ["-DFASTDRAW_EMULATED", "-DTORCH_TARGET_VERSION=0x020b000000000000", "-DTORCH_STABLE_ONLY"]
FLAGS = ["-std=c++20", "-O2", "-g0", "-fPIC", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]


def nvcc() -> str | None:
    """Where nvcc is, if anywhere."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc", path=f"{home}/bin") or shutil.which("nvcc")


def require_nvcc() -> str:
    path = nvcc()
    if path is None:
        raise FastdrawError("no nvcc was found: install a CUDA toolkit or set CUDA_HOME to one")
    return path


def toolkit() -> Path:
    """The headers of CUDA."""
    return Path(require_nvcc()).resolve().parent.parent / "include"


def build(
    folder: Path = ROOT / "build" / "emulated", sources: Sequence[Path] = SOURCES, sanitizer: Sequence[str] = ALIGNMENT
) -> Path:
    """Compile what has changed into a folder, and link it."""
    folder.mkdir(parents=True, exist_ok=True)
    includes = [f"-I{ROOT / 'csrc'}", *(f"-isystem{path}" for path in (toolkit(), *cpp_extension.include_paths()))]
    newest_header = max(path.stat().st_mtime for path in [*HEADERS, Path(__file__), Path(torch.__file__)])

    def compile_one(source: Path) -> Path:
        made = folder / f"{source.parent.name}-{source.stem}.o"
        if not made.exists() or made.stat().st_mtime < max(source.stat().st_mtime, newest_header):
            fresh = made.with_suffix(".new")
            run("c++", "-x", "c++", *FLAGS, *DEFINES, *sanitizer, *includes, "-c", str(source), "-o", str(fresh))
            fresh.replace(made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    library = folder / "emulated.so"
    if not library.exists() or library.stat().st_mtime < max(path.stat().st_mtime for path in objects):
        fresh = library.with_suffix(".new")
        libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
        run("c++", "-shared", *sanitizer, *map(str, objects), *libraries, "-ltorch", "-lc10", "-o", str(fresh))
        fresh.replace(library)
    return library


@contextmanager
def in_reverse() -> Iterator[None]:
    """Run every loop that the threads of a block share from its end: results that differ would be races on a GPU."""
    library = ctypes.CDLL(os.environ["FASTDRAW_EMULATED"])
    library.fastdraw_emulate_in_reverse(1)
    try:
        yield
    finally:
        library.fastdraw_emulate_in_reverse(0)


def main(arguments: list[str]) -> int:
    if nvcc() is None:
        print("fastdraw: the CUDA kernels are not emulated: there is no CUDA toolkit, whose headers they include")
        return 0
    environment = os.environ | {"FASTDRAW_EMULATED": str(build()), "FASTDRAW_BACKEND": "cuda"}
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], env=environment, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FastdrawError as error:
        sys.exit(f"fastdraw: error: {error}")
