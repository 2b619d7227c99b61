"""How each kernel is launched: block sizes, warps and stages, by architecture.

`python -m fastdraw.tune` looks for better ones on the GPU that is there and keeps them in a file, which wins over the
table below. Nothing is tuned or read at import.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

import torch

# Block sizes are those of a launch at the paper's sizes; a launcher takes less where a tensor is smaller. Not yet
# measured on a GPU: chosen so that nothing spills and a program has a few independent loads in flight.
_AMPERE: dict[str, dict[str, int]] = {
    "filterbank": {"BLOCK_A": 64, "num_warps": 4},
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


def config(name: str, device: torch.device) -> dict[str, Any]:
    """Block sizes and launch options of the kernels `name`, as keywords."""
    # Fusion is said outright because Triton is about to change its default, and warns until one does.
    return {**TABLE[_arch(device)][name], **_tuned(_gpu(device)).get(name, {}), "enable_fp_fusion": True}


def tuned_file() -> Path:
    """Where `fastdraw.tune` keeps what it found."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fastdraw" / "configs.json"


@functools.cache
def _gpu(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


@functools.cache
def _arch(device: torch.device) -> str:
    """The newest architecture of the table that is not newer than the device; the oldest where that says nothing."""
    known = sorted(TABLE, key=_number)
    if device.type != "cuda" or torch.version.hip is not None:
        return known[0]
    major, minor = torch.cuda.get_device_capability(device)
    return max((arch for arch in known if _number(arch) <= 10 * major + minor), key=_number, default=known[0])


def _number(arch: str) -> int:
    return int(arch.removeprefix("sm_"))


@functools.cache
def _tuned(gpu: str) -> dict[str, dict[str, int]]:
    path = tuned_file()
    return json.loads(path.read_text()).get(gpu, {}) if path.exists() else {}
