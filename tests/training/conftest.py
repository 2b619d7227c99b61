"""What the tests of training share with those of the command line: digits read once, and finished runs."""

import functools
from collections.abc import Iterator

import pytest
import torch

from fastdraw.data import load_cells, load_mnist_images
from fastdraw.training import sources


@pytest.fixture(autouse=True, scope="module")  # before the runs that a module shares
def _digits_read_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "load_cells", cached_cells)
        patch.setattr(sources, "load_mnist_images", cached_images)
        yield


@pytest.fixture(autouse=True)
def _threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


cached_cells = functools.cache(load_cells)
cached_images = functools.cache(load_mnist_images)
