"""The report of what is installed."""

import subprocess
import sys

from fastdraw import ops


def test_info_runs_and_lists_every_op() -> None:
    done = subprocess.run([sys.executable, "-m", "fastdraw.info"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in (name for name in ops.__all__ if name.islower()):
        assert name in done.stdout, name
    for word in ("fastdraw", "python", "torch", "triton", "extension", "device cpu"):
        assert word in done.stdout, word
