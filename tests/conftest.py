"""What every test has: seeds, poisoned memory, and Hypothesis settings that give the same examples on every machine."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

from fastdraw import dispatch

# `make gpu` runs the tests of kernels where nothing but torch and pytest may be installed.
if find_spec("hypothesis"):
    import hypothesis

    hypothesis.settings.register_profile("stable", deadline=None, derandomize=True, max_examples=12, database=None)
    hypothesis.settings.load_profile("stable")

DRY = os.environ.get("FASTDRAW_GPU_DRY") == "1"  # the GPU's tests run on the CPU: `make gpu DRY=1`

if os.environ.get("TRITON_INTERPRET") == "1":
    from . import interpreter

    interpreter.hasten()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available() and not DRY:
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    torch.manual_seed(0)


@pytest.fixture
def own_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """fastdraw chooses the backend, whatever FASTDRAW_BACKEND says."""
    monkeypatch.setattr(dispatch, "_forced", [])


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """Fill every uninitialised allocation with NaN, also in C++ kernels, so that an element nobody wrote is seen."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])
