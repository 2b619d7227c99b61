"""Checkpoint files: named tensors and what they belong to, in one safetensors file that is checked before use."""

import hashlib
import json
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import fastdraw
from fastdraw.errors import FastdrawError
from fastdraw.files import write_atomically

FORMAT, VERSION = "fastdraw-checkpoint", 2
Layout = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def write_checkpoint(path: Path, tensors: dict[str, Tensor], settings: BaseModel) -> None:
    """Write tensors with the settings, the versions and a checksum, atomically.

    Raises:
        FastdrawError: the file cannot be written; an older one is unharmed.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "settings": settings.model_dump_json(),
        "fastdraw": fastdraw.__version__,
        "torch": torch.__version__,
    }
    metadata["sha256"] = _checksum(tensors, metadata)
    write_atomically(path, save(tensors, metadata))


def read_checkpoint(path: Path, settings: BaseModel | None = None) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint to the CPU.

    Args:
        settings: those that it must have been written with; None: any.
    Raises:
        FastdrawError: no such file, not a checkpoint of this program and version, damaged, or of other settings.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except FileNotFoundError:
        raise FastdrawError(f"{path} is missing: expected a checkpoint written by fastdraw train") from None
    except OSError as error:
        raise FastdrawError(f"{path} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise FastdrawError(f"{path} is damaged or no safetensors file ({error}): restore it from a copy") from None
    if metadata.get("format") != FORMAT:
        raise FastdrawError(f"{path} is no fastdraw checkpoint: its format tag is {metadata.get('format')!r}")
    if metadata.get("version") != str(VERSION):
        raise FastdrawError(f"{path} has checkpoint version {metadata.get('version')}, this fastdraw reads {VERSION}")
    if metadata.pop("sha256", None) != _checksum(tensors, metadata):
        raise FastdrawError(f"{path} is damaged: its checksum does not match; restore it from a copy")
    # Layouts of different models can be alike: a likelihood, say, has no tensor.
    if settings is not None and type(settings).model_validate_json(metadata["settings"]) != settings:
        raise FastdrawError(
            f"{path} was written with other settings than those beside it: restore both from one copy, or save it again"
        )
    return tensors


def check_layout(path: Path, tensors: dict[str, Tensor], expected: Layout) -> None:
    """Compare every name, dtype and shape with those of the run that the checkpoint is to serve.

    Raises:
        FastdrawError: what differs first.
    """
    hint = "the checkpoint belongs to other settings than settings.json beside it"
    if tensors.keys() != expected.keys():
        difference = sorted(tensors.keys() ^ expected.keys())[0]
        raise FastdrawError(
            f"{path}: {difference} is {'missing' if difference in expected else 'not expected'}; {hint}"
        )
    for name, (dtype, shape) in expected.items():
        tensor = tensors[name]
        if (tensor.dtype, tuple(tensor.shape)) != (dtype, shape):
            came = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            raise FastdrawError(
                f"{path}: {name} is {came}, expected {shape} {str(dtype).removeprefix('torch.')}; {hint}"
            )


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
