"""Autocast for ops that torch does not know: mixed arguments are brought to one dtype, as torch does for its own.

float64 is left alone, so that float64 beside another dtype stays an error.
"""

from typing import Any

import torch
from torch import Tensor


def to_lower(*arguments: Any) -> tuple[Any, ...]:
    """Under autocast, cast tensors to its dtype: for ops that are products."""
    device = _autocast_device(arguments)
    return arguments if device is None else _cast(arguments, torch.get_autocast_dtype(device))


def to_float32(*arguments: Any) -> tuple[Any, ...]:
    """Under autocast, cast tensors to float32: for sums whose rounding would be felt."""
    return arguments if _autocast_device(arguments) is None else _cast(arguments, torch.float32)


def is_enabled(device: str) -> bool:
    """Whether autocast is on for a type of device; some, such as meta, have none, and torch raises if asked."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _autocast_device(arguments: tuple[Any, ...]) -> str | None:
    device = next((x.device.type for x in arguments if isinstance(x, Tensor)), None)
    return device if device is not None and is_enabled(device) else None


def _cast(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    def eligible(x: Any) -> bool:
        return isinstance(x, Tensor) and x.is_floating_point() and x.dtype != torch.float64

    return tuple(x.to(dtype) if eligible(x) else x for x in arguments)
