"""The C++ extension fastdraw/_C.abi3.so: load it, or say why it cannot be loaded."""

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch

_FOLDER = Path(__file__).parent
LIBRARY = _FOLDER / "_C.abi3.so"
_RECORD = _FOLDER / "_build.json"


@functools.cache
def load() -> str | None:
    """Load the extension, once, and return None, or the reason why it is not there."""
    if not LIBRARY.exists():
        because = build_info().get("why_no_extension")
        missing = "the C++ extension was not built" + (f": {because}" if because else "")
        return (
            f"{missing}; with a C++ compiler, run `pip install --no-build-isolation -e .` in fastdraw's source folder"
        )
    try:
        torch.ops.load_library(LIBRARY)
    except (OSError, RuntimeError) as error:
        built = build_info()
        return (
            f"the C++ extension cannot be loaded: {error}; it was built for torch {built.get('torch', '(unknown)')} "
            f"and this is torch {torch.__version__}: build it again, `pip install --no-build-isolation -e .`"
        )
    return None


@functools.cache
def load_emulation() -> bool:
    """Load the CUDA kernels as compiled for the host, for tests, if FASTDRAW_EMULATED names their library."""
    path = os.environ.get("FASTDRAW_EMULATED")
    if path:
        torch.ops.load_library(path)
    return bool(path)


def has_cuda() -> bool:
    """Whether the extension is loaded and was built with its CUDA kernels."""
    return load() is None and bool(build_info().get("cuda"))


@functools.cache
def build_info() -> dict[str, Any]:
    """What the build recorded: versions, compiler, flags, GPU architectures, date, and why a part was left out.

    Empty where nothing was ever built.
    """
    return json.loads(_RECORD.read_text()) if _RECORD.exists() else {}
