"""Build fastdraw: one stable-ABI extension, fastdraw/_C.abi3.so, for every torch >= 2.11 and Python >= 3.10.

Environment:
    FASTDRAW_CUDA         1: build the CUDA kernels or fail; 0: leave them out; unset: build them where that is possible
    FASTDRAW_SANITIZE     1: build with AddressSanitizer and UndefinedBehaviorSanitizer, in a folder of its own
    TORCH_CUDA_ARCH_LIST  GPU architectures in torch's notation; by default Ampere, Hopper, Blackwell and PTX
    CUDA_HOME, CXX        where the CUDA toolkit is, which C++ compiler to use
    MAX_JOBS              how many files are compiled at the same time
"""

import json
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

try:
    import torch
except ImportError:
    sys.exit(
        "fastdraw: building needs torch >= 2.11: `pip install torch` first, or install without --no-build-isolation"
    )

try:  # a virtual environment's ninja is not on PATH unless the environment is activated
    import ninja

    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ.get("PATH", "")])
except ImportError:
    pass

MIN_TORCH = (2, 11)
SANITIZE = os.environ.get("FASTDRAW_SANITIZE") == "1"
DEFINES = [("TORCH_TARGET_VERSION", "0x020b000000000000"), ("TORCH_STABLE_ONLY", None)]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover"] if SANITIZE else []
# Sanitizers do without clones for several instruction sets (csrc/cpu/simd.h); without FMA, results would be rounded
# otherwise than those that are shipped.
BASELINE = ["-march=x86-64-v3"] if SANITIZE and platform.machine() == "x86_64" else []
CXX_FLAGS = [
    "-std=c++20",
    # Python asks for -g: five times the size and a quarter more time.
    *(["-O2", "-g", *BASELINE, *SANITIZERS] if SANITIZE else ["-O3", "-g0"]),
    "-fopenmp-simd",
    "-ffp-contract=fast",
    # Two guarantees that nobody relies on, and that keep loops from being vectorised.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
NVCC_FLAGS = ["-std=c++20", "-O3", "-Xptxas=-warn-spills", "-Xcompiler=-fvisibility=hidden"]


def version_of(command: list[str], pattern: str) -> str | None:
    """The first group of `pattern` in what `command --version` prints, or None where it cannot run."""
    try:
        text = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(pattern, text)
    return found.group(1) if found else None


def find_cuda_home() -> Path | None:
    """The CUDA toolkit: nvcc and its headers. torch's own guess is led astray by an nvcc that is a wrapper script."""
    asked = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    on_path = shutil.which("nvcc")
    places = [asked] if asked else [on_path and Path(on_path).resolve().parent.parent, "/usr/local/cuda"]
    for place in filter(None, places):
        if Path(place, "bin", "nvcc").exists() and Path(place, "include", "cuda_runtime.h").exists():
            return Path(place)
    return None


def why_not_cuda(cuda_home: Path | None, nvcc: str | None) -> str | None:
    """The reason why the CUDA kernels cannot be built, or None. Whether there is a GPU does not matter here."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    if cuda_home is None or nvcc is None:
        return "no nvcc was found (set CUDA_HOME to a CUDA toolkit)"
    if nvcc.split(".")[0] != torch.version.cuda.split(".")[0]:
        return f"nvcc is {nvcc} and torch was built for CUDA {torch.version.cuda}: the major versions must agree"
    return None


def default_archs(nvcc: str) -> str:
    return "8.0;9.0a;10.0+PTX" if tuple(map(int, nvcc.split("."))) >= (12, 8) else "8.0;9.0a;9.0+PTX"


def configure() -> dict:
    """What will be built and with what; stored in fastdraw/_build.json and shown by `python -m fastdraw.info`."""
    if tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < MIN_TORCH:
        sys.exit(f"fastdraw: building needs torch >= 2.11, found {torch.__version__}: `pip install -U torch`")
    asked = os.environ.get("FASTDRAW_CUDA")
    if asked not in (None, "", "0", "1"):
        sys.exit(f"fastdraw: FASTDRAW_CUDA must be 0, 1 or unset, got {asked!r}")

    compiler = shlex.split(os.environ.get("CXX", "c++"))
    compiler_version = version_of(compiler, r"(.+)")
    cuda_home = find_cuda_home()
    nvcc = cuda_home and version_of([str(cuda_home / "bin" / "nvcc")], r"release (\d+\.\d+)")
    no_cuda = "FASTDRAW_CUDA=0" if asked == "0" else why_not_cuda(cuda_home, nvcc)
    no_extension = None if compiler_version else f"no C++ compiler ({compiler[0]}) was found"
    if asked == "1" and (no_cuda or no_extension):
        sys.exit(f"fastdraw: FASTDRAW_CUDA=1, but {no_cuda or no_extension}")
    cuda = not no_cuda and not no_extension
    if cuda:
        os.environ["CUDA_HOME"] = str(cuda_home)  # read by torch.utils.cpp_extension when it is imported
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", default_archs(nvcc))
    return {
        "extension": no_extension is None,
        "why_no_extension": no_extension,
        "cuda": cuda,
        "why_no_cuda": no_cuda,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "nvcc": nvcc if cuda else None,
        "cuda_archs": os.environ["TORCH_CUDA_ARCH_LIST"] if cuda else None,
        "compiler": compiler_version,
        "cxx_flags": shlex.join(CXX_FLAGS),
        "nvcc_flags": shlex.join(NVCC_FLAGS) if cuda else None,
        "python": sys.version.split()[0],
    }


CONFIG = configure()

# Imported after configure(), which tells it where CUDA is. Its warnings (no GPU; nvcc and torch differ in the minor
# version, which CUDA allows) are answered by the configuration that is printed.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension  # noqa: E402


class BuildFastdraw(BuildExtension):
    """Build the extension where there is a compiler, and record what was built and why the rest was not."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # pip would use a new folder every time and compile everything again.
        self.build_temp = "build/sanitize/temp" if SANITIZE else "build/temp"

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + ".abi3.so"  # the same name on every Python and platform

    def run(self) -> None:
        for key, value in CONFIG.items():
            print(f"fastdraw: {key} = {value}", flush=True)
        target = Path(self.get_ext_fullpath("fastdraw._C"))
        if CONFIG["extension"]:
            super().run()
        else:
            target.unlink(missing_ok=True)  # of an earlier build: it would contradict the record
            print(f"fastdraw: installed without the C++ extension: {CONFIG['why_no_extension']}", flush=True)
        record = CONFIG | {"date": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_name("_build.json").write_text(json.dumps(record, indent=2) + "\n")


def sources(*patterns: str) -> list[str]:
    return sorted(str(path) for pattern in patterns for path in Path("csrc").glob(pattern))


extension = (CUDAExtension if CONFIG["cuda"] else CppExtension)(
    "fastdraw._C",
    sources("*.cpp", "cpu/*.cpp", *(["cuda/bindings/*.cpp", "cuda/*.cu"] if CONFIG["cuda"] else [])),
    depends=sources("*.h", "cpu/*.h", "cuda/*.h", "cuda/bindings/*.h"),
    include_dirs=[str(Path("csrc").resolve())],
    define_macros=[*DEFINES, *([("USE_CUDA", None)] if CONFIG["cuda"] else [])],
    # Error messages name the source file, which is not to tell where it was built.
    extra_compile_args={"cxx": [*CXX_FLAGS, f"-fmacro-prefix-map={Path.cwd()}/="], "nvcc": NVCC_FLAGS},
    extra_link_args=[*SANITIZERS, *(["-Wl,--exclude-libs,ALL"] if sys.platform == "linux" else [])],
    py_limited_api=True,
)

setup(
    packages=[
        # Folders of data count as packages too, or setuptools warns of each.
        *find_namespace_packages(include=["fastdraw", "fastdraw.*"], exclude=["*.__pycache__", "*.__pycache__.*"]),
        "fastdraw.kernels",
        *(f"fastdraw.kernels.{package}" for package in find_packages("kernels")),
    ],
    package_dir={"fastdraw.kernels": "kernels"},
    ext_modules=[extension],
    cmdclass={"build_ext": BuildFastdraw},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
