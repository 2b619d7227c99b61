"""The command line runs in this process, on digits that are read once."""

from pathlib import Path

import pytest

from fastdraw.cli import main
from tests.training.conftest import _digits_read_once, _threads_restored
from tests.training.tiny import tiny_arguments

__all__ = ["_digits_read_once", "_threads_restored"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *tiny_arguments(steps=4), "--out", str(folder)]) == 0
    return folder
