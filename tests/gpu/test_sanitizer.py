"""compute-sanitizer finds nothing in the kernels in CUDA C++: no wrong address, no race, no wrong use of a barrier."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fastdraw import dispatch

from ..emulation import nvcc
from .machine import DRY

pytestmark = pytest.mark.gpu

LIMIT = "150"  # seconds; a sanitizer slows a kernel down tenfold or more
OPTIONS = ["--kernel-name", "kns=fastdraw", "--error-exitcode", "1"]
# torch asks the driver for functions that it may lack, which would count as errors, and its import alone may take
# longer than the ten seconds that a sanitizer waits for a program to reach the GPU.
OPTIONS += ["--report-api-errors", "no", "--launch-timeout", "0"]


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_sanitizer_finds_nothing(tool: str) -> None:
    command = [sys.executable, "-m", "tests.gpu.sanitized"]
    if DRY and not dispatch.emulated:
        pytest.skip("the CUDA kernels are not emulated: there is no CUDA toolkit")
    if not DRY:
        folders = [str(Path(found).parent) for found in [nvcc()] if found]
        path = shutil.which("compute-sanitizer", path=os.pathsep.join([*folders, os.environ["PATH"]]))
        if path is None:
            pytest.skip("no compute-sanitizer in the PATH or beside nvcc")
        command = [path, "--tool", tool, *OPTIONS, *command]
    # With an allocation for each tensor, an access beyond its end is none within another.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    # The program `timeout` also ends what the sanitizer has started.
    done = subprocess.run(
        ["timeout", LIMIT, *command],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
