"""The choice of a backend, and the words when there is none."""

import os
import subprocess
import sys

import pytest
import torch

import fastdraw
from fastdraw import dispatch, ops

GATES = torch.zeros(1, 4), torch.zeros(1, 1)


def test_a_backend_that_cannot_run_says_why() -> None:
    with (
        fastdraw.backend("cuda"),
        pytest.raises(dispatch.BackendError, match=r"^lstm_gates: the backend 'cuda' was asked for"),
    ):
        ops.lstm_gates(*GATES)
    zero = torch.zeros(1, 1)
    with (
        fastdraw.backend("cuda"),
        pytest.raises(dispatch.BackendError, match=r"^lstm_step: the backend 'cuda' was asked for"),
    ):
        ops.lstm_step(zero, (zero, zero), *[torch.zeros(4, 1)] * 2)
    with fastdraw.backend("cuda"), pytest.raises(dispatch.BackendError, match=r"gaussian_kl has no cuda kernel$"):
        ops.gaussian_kl(torch.zeros(1, 1), torch.zeros(1, 1))


def test_an_unknown_backend_is_an_error() -> None:
    with (
        pytest.raises(ValueError, match=r"^backend must be one of cuda, triton, cpu, reference, got 'gpu'$"),
        fastdraw.backend("gpu"),
    ):
        pass


def test_the_block_ends_also_by_an_exception() -> None:
    before = dispatch.forced()
    with fastdraw.backend("reference"):
        assert dispatch.forced() == "reference"
    with pytest.raises(dispatch.BackendError), fastdraw.backend("reference"), fastdraw.backend("cuda"):
        ops.lstm_gates(*GATES)
    assert dispatch.forced() == before


def test_blocks_of_threads_may_end_in_any_order() -> None:
    first, second = fastdraw.backend("reference"), fastdraw.backend("cpu")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert dispatch.forced() == "cpu"
    second.__exit__(None, None, None)
    assert dispatch.forced() is None


def test_refusal_never_raises() -> None:
    for name in dispatch.BACKENDS:
        for device in ("cpu", "cuda", "mps", "meta"):
            for dtype in ("float32", "bfloat16", "int8"):
                reason = dispatch.refusal(name, "op", {"cuda", "triton", "cpu"}, device, dtype)
                assert reason is None or reason


def test_a_device_without_kernels_gets_the_reference() -> None:
    assert dispatch.choose("lstm_gates", {"cuda", "triton", "cpu"}, "meta", "float32") == "reference"
    assert dispatch.choose("lstm_gates", {"cuda", "triton"}, "cpu", "float32") == "reference"


def test_every_table_entry_has_known_backends() -> None:
    for op in ops.TABLE:
        assert op.backends <= set(dispatch.BACKENDS)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("reference", "reference"),
        ("cuda", "lstm_gates: the backend 'cuda' was asked for"),
        ("fast", "backend must be one of"),
    ],
)
def test_the_environment_variable_forces_a_backend(value: str, words: str) -> None:
    script = (
        "import torch; from fastdraw import dispatch, ops; "
        "ops.lstm_gates(torch.zeros(1, 4), torch.zeros(1, 1)); print(dispatch.forced())"
    )
    environment = {**os.environ, "FASTDRAW_BACKEND": value}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert words in (done.stdout if value == "reference" else done.stderr)
    assert (done.returncode == 0) == (value == "reference")
