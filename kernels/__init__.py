"""Triton kernels, one file per op; nothing is imported or compiled until a launcher is called."""

import functools
import importlib.util
import os

import torch

OLDEST = (8, 0)  # compute capability: the kernels rely on asynchronous copies and on bfloat16


@functools.cache
def reason(device_type: str, index: int | None = None) -> str | None:
    """Why the Triton kernels cannot run on tensors of this device ("cuda", 0), or None if they can; found once."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed: pip install triton"
    if device_type == "cuda":
        return _too_old(index)
    if device_type != "cpu":
        return f"Triton kernels take cuda tensors (and cpu tensors in the interpreter), got {device_type}"
    if os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton takes cpu tensors only in its interpreter: set TRITON_INTERPRET=1 before Python starts"
    return None


def _too_old(index: int | None) -> str | None:
    # AMD counts otherwise. Without a GPU there are fake tensors only, which may be meant for another machine.
    if torch.version.hip is not None or not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(index)
    if (major, minor) >= OLDEST:
        return None
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor} and the Triton kernels need "
        f"{'{}.{}'.format(*OLDEST)} (sm_80) or newer: ask for the backend 'reference', or for none"
    )
