"""The examples, loaded by their path as users run them, and a small folder of digits."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fastdraw.data.mnist import RAW, load_mnist
from tests.data.test_mnist import idx
from tests.scripts import EXAMPLES, load_script

NOISE = 9


@pytest.fixture(scope="session")
def anomaly() -> ModuleType:
    return load_script("anomaly", EXAMPLES)


@pytest.fixture(scope="session")
def compression() -> ModuleType:
    return load_script("compression", EXAMPLES)


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real digits, 600 to train and 300 to test on, whose labels 0 to 8 are drawn by lot; those labelled 9 are noise.

    No model can tell an 8 from the others, and any model the 9.
    """
    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    (root / RAW).mkdir(parents=True)
    for split, name, number in (("train", "train", 600), ("test", "t10k", 300)):
        images, labels = load_mnist(None, split)[0][:number].copy(), rng.integers(10, size=number, dtype=np.uint8)
        noise = labels == NOISE
        images[noise] = rng.integers(256, size=images[noise].shape, dtype=np.uint8)
        (root / RAW / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (root / RAW / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels))
    return root
