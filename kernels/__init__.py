"""Triton kernels, one file per op; nothing is imported or compiled until a launcher is called."""

import importlib.util
import os


def reason(device_type: str) -> str | None:
    """Why the Triton kernels cannot run on tensors of this device type ("cuda", "cpu", ...), or None if they can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed: pip install triton"
    if device_type == "cuda":
        return None
    if device_type != "cpu":
        return f"Triton kernels take cuda tensors (and cpu tensors in the interpreter), got {device_type}"
    if os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton takes cpu tensors only in its interpreter: set TRITON_INTERPRET=1 before Python starts"
    return None
