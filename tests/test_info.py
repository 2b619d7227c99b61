"""The report of what is installed."""

import os
import subprocess
import sys

import fastdraw
from fastdraw import info, ops


def test_info_runs_and_lists_every_op() -> None:
    done = subprocess.run([sys.executable, "-m", "fastdraw.info"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in (name for name in ops.__all__ if name.islower()):
        assert name in done.stdout, name
    for word in ("fastdraw", "python", "torch", "triton", "extension", "device cpu"):
        assert word in done.stdout, word


def test_an_unknown_backend_is_an_error_of_one_line() -> None:
    environment = os.environ | {"FASTDRAW_BACKEND": "nonsense"}
    command = [sys.executable, "-m", "fastdraw.info"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("fastdraw: error: FASTDRAW_BACKEND: backend must be one of cuda, triton, cpu")
    assert done.stderr.count("\n") == 1


def test_info_of_a_forced_backend_says_what_cannot_run() -> None:
    with fastdraw.backend("cuda"):
        text = info.report()
    assert "backend asked for: cuda\n" in text
    assert "  gaussian_kl          cannot run\n    not cuda: the tensors are on cpu\n" in text


def test_an_op_made_of_another_is_told_so() -> None:
    assert "| `lstm_step` | by `lstm_gates` | yes | by `lstm_gates` | yes |" in info.table()
    with fastdraw.backend("reference"):
        assert "by lstm_gates" not in info.report()
