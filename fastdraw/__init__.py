"""fastdraw: recurrent attention models made fast.

`fastdraw.ops` holds the differentiable ops, `fastdraw.reference` the same in plain PyTorch, `fastdraw.models` the
papers' systems.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dispatch import backend

try:
    __version__ = version("fastdraw")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__", "backend"]


def __getattr__(name: str) -> Any:
    # torch is loaded when it is used: the command line answers at once, and sets the thread policy before.
    if name == "backend":
        from .dispatch import backend

        return backend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
