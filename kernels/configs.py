"""How each kernel is launched: block sizes, warps and stages, by architecture.

`python -m fastdraw.tune` looks for better ones on the GPU that is there and keeps them in a file, which wins over the
table below. Nothing is tuned or read at import.
"""

import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import FastdrawError

# Block sizes are those of a launch at the paper's sizes; a launcher takes less where a tensor is smaller. Not yet
# measured on a GPU: chosen so that nothing spills and a program has a few independent loads in flight.
_AMPERE: dict[str, dict[str, int]] = {
    "filterbank": {"BLOCK_A": 32, "num_warps": 4},
    "glimpse": {"BLOCK_H": 16, "BLOCK_W": 32, "num_warps": 8},
    "lstm_gates": {"TILE": 512, "num_warps": 4},
    # B = 128 and U = 400 are 4 x 25 programs, for 108 multiprocessors or more: one on each, of two warps per scheduler.
    # 128 bytes of each of 96 rows are 12 KB a step: 4 stages keep 36 KB on the way, about what 64 bytes a clock bring
    # in the 600 clocks that a read may take.
    "lstm_step": {"BLOCK_B": 32, "BLOCK_U": 16, "BYTES_K": 128, "num_warps": 8, "num_stages": 4},
    "latent": {"TILE": 256, "num_warps": 2},
    "likelihood": {"TILE": 1024, "num_warps": 4},
    "attention": {"TILE": 1024, "num_warps": 4},
    "sums": {"TILE": 1024, "num_warps": 4},
}
TABLE = {"sm_80": _AMPERE, "sm_90": _AMPERE, "sm_100": _AMPERE}


ANY_NUMBER = ("num_stages", "maxnreg")  # all others are powers of two

# What `using` gave, the latest last.
_given: list[Mapping[str, dict[str, int]]] = []


def config(name: str, device: torch.device) -> dict[str, Any]:
    """Block sizes and launch options of the kernels `name`, as keywords."""
    table = _given[-1] if _given else current(device)
    # Fusion is said outright because Triton is about to change its default, and warns until one does.
    return {**table[name], "enable_fp_fusion": True}


@functools.cache
def current(device: torch.device) -> Mapping[str, dict[str, int]]:
    """What the kernels are launched with on a device: the table's row, and over it what was tuned there.

    Raises:
        FastdrawError: the file of tuned configurations is broken.
    """
    if device.type != "cuda":
        return TABLE[min(TABLE, key=_number)]
    tuned = read_tuned().get(torch.cuda.get_device_name(device), {})
    return {name: {**values, **tuned.get(name, {})} for name, values in of(_arch(device)).items()}


def of(arch: str) -> Mapping[str, dict[str, int]]:
    """The row of the table for an architecture, such as sm_90 or sm_90a: the newest one that is not newer than it."""
    known = sorted(TABLE, key=_number)
    return TABLE[max((name for name in known if _number(name) <= _number(arch)), key=_number, default=known[0])]


@contextmanager
def using(given: Mapping[str, dict[str, int]]) -> Iterator[None]:
    """Launch with these configurations, whatever the device: to compile for another one, and to try them out."""
    _given.append(given)
    try:
        yield
    finally:
        _given.pop()


def tuned_file() -> Path:
    """Where `fastdraw.tune` keeps what it found."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fastdraw" / "configs.json"


def read_tuned() -> dict[str, dict[str, dict[str, int]]]:
    """What was tuned, by the name of the GPU.

    Raises:
        FastdrawError: the file is broken, or no file of this version.
    """
    path = tuned_file()
    try:
        found = json.loads(path.read_bytes()) if path.exists() else {}
        _check(found)
    except (OSError, ValueError) as error:
        raise FastdrawError(
            f"{path}, the file of tuned configurations, cannot be used: {error}; "
            "delete it, and run `python -m fastdraw.tune` where the GPU is to tune again"
        ) from None
    return found


def forget_tuned() -> None:
    """Read the file of tuned configurations again at the next launch."""
    current.cache_clear()


def _check(found: Any) -> None:
    known = {name: values.keys() for row in TABLE.values() for name, values in row.items()}
    for gpu, entries in _items(found, "the file"):
        for name, values in _items(entries, gpu):
            if name not in known:
                raise ValueError(f"{gpu}: there are no kernels {name!r}")
            for key, value in _items(values, f"{gpu}: {name}"):
                if key not in known[name]:
                    raise ValueError(f"{gpu}: {name}: there is no {key!r}, only {', '.join(known[name])}")
                if type(value) is not int or value < 1:
                    raise ValueError(f"{gpu}: {name}: {key} must be a positive integer, got {value!r}")
                if key not in ANY_NUMBER and value & (value - 1):
                    raise ValueError(f"{gpu}: {name}: {key} must be a power of two, got {value}")


def _items(found: Any, where: str) -> Any:
    if not isinstance(found, dict):
        raise ValueError(f"{where} must hold an object, got {type(found).__name__}")
    return found.items()


def _arch(device: torch.device) -> str:
    if torch.version.hip is not None:
        return min(TABLE, key=_number)
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


def _number(arch: str) -> int:
    return int(arch.removeprefix("sm_").rstrip("a"))
