"""fastdraw: recurrent attention models made fast.

`fastdraw.ops` holds the differentiable ops, `fastdraw.reference` the same in plain PyTorch, `fastdraw.models` the papers' systems.
"""

from importlib.metadata import PackageNotFoundError, version

from .dispatch import backend

try:
    __version__ = version("fastdraw")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "backend"]
