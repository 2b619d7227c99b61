"""The command line runs in this process, on digits that are read once."""

from pathlib import Path

import pytest
from PIL import Image

from fastdraw.cli import main
from fastdraw.evaluation import reader
from tests.training.conftest import _digits_read_once, _threads_restored
from tests.training.tiny import tiny_arguments

__all__ = ["_digits_read_once", "_threads_restored"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *tiny_arguments(steps=4), "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def _quick_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader.train_reader, "__defaults__", (20,))


def pictures(folder: Path) -> set[str]:
    """The names of the pictures in a folder, each of which opens and is not blank."""
    paths = [path for path in folder.iterdir() if path.suffix in (".png", ".gif")]
    for path in paths:
        with Image.open(path) as picture:
            assert len(set(picture.convert("L").tobytes())) > 1, path
    return {path.name for path in paths}
