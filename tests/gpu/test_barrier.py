"""A barrier that a block never reaches ends with an error, in a program of its own: on a GPU its context is lost."""

import subprocess
from pathlib import Path

import pytest

from fastdraw.kernels.compile import ROOT, nvcc, require_nvcc, run

from ..emulation import FLAGS, toolkit
from .machine import DRY

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(nvcc() is None, reason="no nvcc")]

LIMIT = 60  # seconds, several times kPatience


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, made = Path(__file__).with_name("barrier.cu"), tmp_path_factory.mktemp("barrier") / "barrier"
    command = [require_nvcc(), "-std=c++20", "-O2", "-arch=native", str(source)]
    if DRY:
        emulation = ROOT / "tests" / "emulation.cpp"
        command = ["c++", *FLAGS, "-pthread", f"-isystem{toolkit()}", "-x", "c++", str(source), str(emulation)]
    run(*command, f"-I{ROOT / 'csrc'}", "-o", str(made))
    return made


@pytest.mark.parametrize(("coming", "words"), [(2, "ended"), (1, "ended with an error")])
def test_a_barrier_ends(program: Path, coming: int, words: str) -> None:
    done = subprocess.run([program, str(coming)], text=True, capture_output=True, check=False, timeout=LIMIT)
    assert done.stdout.splitlines()[0] == words, done.stdout + done.stderr
