"""Which implementation serves a call: chosen by device and by what can run here, or forced by the user."""

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from . import defaults, extension
from .errors import FastdrawError
from .kernels import reason

BACKENDS = ("cuda", "triton", "cpu", "reference")

# In order of preference, where no measurement says otherwise (fastdraw/defaults.json). Triton's interpreter and the
# emulation of CUDA kernels are made for tests, so they have to be asked for.
PREFERENCE = {"cuda": ("triton", "cuda", "reference"), "cpu": ("cpu", "reference")}

NONE: Mapping[str, str] = MappingProxyType({})

# What was asked for, the latest last: threads may leave their blocks in any order.
_forced: list[str] = [name for name in [os.environ.get("FASTDRAW_BACKEND")] if name]

# Facts of the installation, found once; torch.compile then sees constants.
extension_refusal = extension.load()
emulated = extension.load_emulation()
cuda_refusal = None if extension.has_cuda() else "the extension was built without CUDA"


class Work(NamedTuple):
    """What measurements tell the calls of an op apart by."""

    dtype: str  # that products multiply in
    batch: int


class BackendError(FastdrawError, RuntimeError):
    """The backend that was asked for cannot serve the call; the message says why."""


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Force a backend, "cuda", "triton", "cpu" or "reference", for every op called inside the block, in all threads.

    The environment variable FASTDRAW_BACKEND does the same for a whole process. A call that the backend cannot serve
    raises `BackendError` with the reason; nothing falls back in silence.

    Raises:
        ValueError: no backend has that name.
    """
    if name not in BACKENDS:
        raise ValueError(_unknown(name))
    _forced.append(name)
    try:
        yield
    finally:
        del _forced[len(_forced) - 1 - _forced[::-1].index(name)]


def forced() -> str | None:
    """The backend that the user asked for, if any.

    Raises:
        BackendError: FASTDRAW_BACKEND names none.
    """
    if not _forced:
        return None
    if _forced[-1] not in BACKENDS:
        raise BackendError(f"FASTDRAW_BACKEND: {_unknown(_forced[-1])}")
    return _forced[-1]


def choose(
    op: str,
    kernels: Collection[str],
    device: str,
    dtype: str,
    index: int | None = None,
    work: Work | None = None,
    refusals: Mapping[str, str] = NONE,
) -> str:
    """The backend that serves `op`, which has `kernels`, on tensors of that device type, dtype and device index.

    `refusals`: why a backend cannot serve the call for its sizes.
    """
    asked = forced()
    if asked is not None:
        why = refusal(asked, op, kernels, device, dtype, index) or refusals.get(asked)
        if why is not None:
            raise BackendError(f"{op}: the backend {asked!r} was asked for and cannot run: {why}")
        return asked
    return preferred(op, set(kernels) - refusals.keys(), device, dtype, index, work)


def preferred(
    op: str, kernels: Collection[str], device: str, dtype: str, index: int | None = None, work: Work | None = None
) -> str:
    """The backend that serves the call where the user asked for none: what was measured to be faster, if it can."""
    names = PREFERENCE.get(device, ())
    if device == "cuda" and work is not None:
        names = *(row.backend for row in _measured(op, index) if row.counts_for(*work)), *names
    for name in names:
        if refusal(name, op, kernels, device, dtype, index) is None:
            return name
    return "reference"


def refusal(
    name: str, op: str, kernels: Collection[str], device: str, dtype: str, index: int | None = None
) -> str | None:
    """Why backend `name` cannot serve the call, or None when it can; without an index on the current device."""
    if name == "reference":
        return None
    if name not in kernels:
        return f"{op} has no {name} kernel"
    if name == "cuda" and op in ("draw_rollout", "draw_generate") and dtype == "float64":
        return "the persistent rollout computes in float32"
    if name == "triton":
        if device == "cpu" and dtype == "bfloat16":
            return "Triton's interpreter rounds bfloat16 toward zero"
        return _triton_refusal(device, index)
    if name == "cuda" and device == "cpu" and emulated:
        return None
    if device != name:
        return f"the tensors are on {device}"
    if extension_refusal is not None:
        return extension_refusal
    return cuda_refusal if name == "cuda" else None


def _triton_refusal(device: str, index: int | None) -> str | None:
    return reason(device, index)


def _measured(op: str, index: int | None) -> tuple[defaults.Row, ...]:
    return defaults.rows(op, index)


# torch.compile calls them once and keeps the answer: it can trace no question about a device. What the public
# torch.compiler.assume_constant_result does, which would load the compiler here.
_triton_refusal._dynamo_marked_constant = True  # type: ignore[attr-defined]
_measured._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _unknown(name: str) -> str:
    return f"backend must be one of {', '.join(BACKENDS)}, got {name!r}"
