"""The command line answers before torch is loaded, and decides how its threads wait."""

import subprocess
import sys

PROGRAM = """
import os, sys
import fastdraw.cli
assert fastdraw.cli.main(["info", "--nonsense"]) == 2
assert "torch" not in sys.modules
assert os.environ["GOMP_SPINCOUNT"] == "10000"
"""


def test_torch_is_not_loaded_before_a_command_needs_it(monkeypatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
