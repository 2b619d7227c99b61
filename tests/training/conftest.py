"""What the tests of training share with those of the command line: digits read once, and finished runs."""

import functools
from collections.abc import Iterator

import pytest
import torch

from fastdraw.data import load_cells
from fastdraw.training import sources


@pytest.fixture(autouse=True)
def _digits_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "load_cells", cached_cells)


@pytest.fixture(autouse=True)
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


cached_cells = functools.cache(load_cells)
