"""A barrier that a block never reaches ends with an error, in a program of its own: on a GPU its context is lost."""

import subprocess
from pathlib import Path

import pytest

from fastdraw.kernels.compile import ROOT, run

from ..emulation import FLAGS, nvcc, require_nvcc, toolkit

pytestmark = pytest.mark.skipif(nvcc() is None, reason="no CUDA toolkit")

PATIENCE = "-DFASTDRAW_PATIENCE=1000000000"  # a second
LIMIT = 60  # seconds, for the start of the program as well


def build(to: Path, device: str) -> Path:
    source, made = Path(__file__).with_name("barrier.cu"), to / "barrier"
    command = [require_nvcc(), "-std=c++20", "-O2", "-arch=native", str(source)]
    if device == "cpu":
        emulation = ROOT / "tests" / "emulation.cpp"
        command = ["c++", *FLAGS, "-pthread", f"-isystem{toolkit()}", "-x", "c++", str(source), str(emulation)]
    run(*command, PATIENCE, f"-I{ROOT / 'csrc'}", "-o", str(made))
    return made


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_barrier_ends(device: str, tmp_path: Path) -> None:
    program = build(tmp_path, device)
    for coming, words in ((2, "ended"), (1, "ended with an error")):
        done = subprocess.run([program, str(coming)], text=True, capture_output=True, check=False, timeout=LIMIT)
        assert done.stdout.splitlines()[0] == words, done.stdout + done.stderr
