"""Validation of an op's arguments, before any kernel starts."""

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = (torch.int64, torch.int32)


def check_tensors(op: str, **arguments: tuple[Tensor | None, str]) -> dict[str, int]:
    """Check that float tensors fit their shapes and one another, and return the size of every letter.

    A shape is written like "B C H W", "B 5" or "B 4U"; a letter has one size in all of a call. An argument whose
    shape ends in "?" may be None.

    Raises:
        TypeError: not a tensor, a sparse one, not a float dtype, or dtypes that differ.
        ValueError: a shape that does not fit, or devices that differ.
    """
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    first: tuple[str, Tensor] | None = None
    for name, (tensor, shape) in arguments.items():
        if tensor is None and shape.endswith("?"):
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{op}: {name} must be a tensor, got {type(tensor).__name__}")
        if tensor.layout is not torch.strided:
            raise TypeError(f"{op}: {name} must be dense, got the layout {_word(tensor.layout)}; call to_dense()")
        dims = shape.rstrip("?").split()
        if tensor.dim() != len(dims):
            raise ValueError(_shape_message(op, name, tensor, dims, sizes, origin))
        for dim, size in zip(dims, tensor.shape, strict=True):
            letter = dim.lstrip("0123456789")
            factor = int(dim[: len(dim) - len(letter)] or 1)
            if letter and letter not in sizes and size % factor == 0:
                sizes[letter], origin[letter] = size // factor, name
            if size != factor * sizes.get(letter, 1 if not letter else -1):
                raise ValueError(_shape_message(op, name, tensor, dims, sizes, origin))
        if first is None:
            first = name, tensor
            if tensor.dtype not in FLOATS:
                raise TypeError(
                    f"{op}: {name} must be float32, bfloat16, float16 or float64, got {_word(tensor.dtype)}"
                )
        elif tensor.dtype != first[1].dtype:
            raise TypeError(
                f"{op}: {name} is {_word(tensor.dtype)} and {first[0]} is {_word(first[1].dtype)}; "
                "give both one dtype, or call under torch.autocast"
            )
        elif tensor.device != first[1].device:
            raise ValueError(
                f"{op}: {name} is on {tensor.device} and {first[0]} on {first[1].device}; move one of them"
            )
    return sizes


def check_counts(
    op: str, name: str, counts: Tensor | None, batch: int, low: int, high: int, device: torch.device
) -> None:
    """Check a (B,) tensor of integers within low..high, on the device of the other arguments.

    The values are read only in eager mode, outside of CUDA graph capture: reading them makes the host wait for a GPU.
    """
    if counts is None:
        return
    if not isinstance(counts, Tensor) or counts.dtype not in INTEGERS:
        came = _word(counts.dtype) if isinstance(counts, Tensor) else type(counts).__name__
        raise TypeError(f"{op}: {name} must be an int64 or int32 tensor, got {came}")
    if counts.shape != (batch,):
        raise ValueError(f"{op}: {name} must have shape (B,) with B = {batch}, got {tuple(counts.shape)}")
    if counts.device != device:
        raise ValueError(f"{op}: {name} is on {counts.device} and the other arguments on {device}; move one of them")
    if batch == 0 or torch.compiler.is_compiling() or isinstance(counts, FakeTensor) or counts.is_meta:
        return
    if torch._C._functorch.is_batchedtensor(counts):
        return
    if counts.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    least, most = (int(value) for value in counts.aminmax())
    if least < low or most > high:
        raise ValueError(f"{op}: {name} must lie in {low}..{high}, got {least}..{most}")


def check_window_options(op: str, n: int, stride: str, eps: float) -> None:
    """Check the options of every op that makes a filterbank."""
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ValueError(f"{op}: n must be an integer of at least 1, got {n!r}")
    if stride not in ("max", "per_axis"):
        raise ValueError(f"{op}: stride must be 'max' or 'per_axis', got {stride!r}")
    if not isinstance(eps, (int, float)) or not 0 < eps < float("inf"):
        raise ValueError(f"{op}: eps must be positive and finite, got {eps!r}")


def check_size(op: str, size: tuple[int, int]) -> tuple[int, int]:
    """Check an image size (H, W) and return it as a tuple."""
    pair = isinstance(size, (tuple, list)) and len(size) == 2
    if not pair or not all(isinstance(side, (int, torch.SymInt)) and side >= 1 for side in size):
        raise ValueError(f"{op}: size must be (H, W) with both at least 1, got {size!r}")
    height, width = size
    return height, width


def _shape_message(
    op: str, name: str, tensor: Tensor, dims: list[str], sizes: dict[str, int], origin: dict[str, str]
) -> str:
    letters = {dim.lstrip("0123456789") for dim in dims}
    bound = [
        f"{letter} = {sizes[letter]} (from {origin[letter]})"
        for letter in sizes
        if letter in letters and origin[letter] != name
    ]
    where = f" with {', '.join(bound)}" if bound else ""
    comma = "," if len(dims) == 1 else ""
    return f"{op}: {name} must have shape ({', '.join(dims)}{comma}){where}, got {tuple(tensor.shape)}"


def _word(kind: torch.dtype | torch.layout) -> str:
    return str(kind).removeprefix("torch.")
