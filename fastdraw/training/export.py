"""A model on its own: its weights and the settings that say what it is, without what training goes on from."""

from pathlib import Path

import torch

from fastdraw.errors import FastdrawError
from fastdraw.files import write_atomically
from fastdraw.models import Model
from fastdraw.training.checkpoint import read_checkpoint, write_checkpoint
from fastdraw.training.run import MODEL
from fastdraw.training.settings import Settings, parse_settings
from fastdraw.training.state import model_of

CONFIG = "config.json"


def save_model(model: Model, settings: Settings, folder: Path) -> None:
    """Write config.json and, at the end, model.safetensors into a folder, which is made.

    The settings are those of the model's run, but for paths of this machine.

    Raises:
        FastdrawError: the folder holds a run or cannot be made, or a file cannot be written.
    """
    if (folder / "settings.json").exists():
        raise FastdrawError(f"{folder} holds a run, whose model is there already: give another --out")
    values = settings.model_dump()
    values["data"] |= {"root": None, "download": False}
    values["refinement"] |= {"features": None}
    portable = parse_settings(values)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastdrawError(f"cannot make the folder {folder}: {error.strerror}") from None
    write_atomically(folder / CONFIG, (portable.model_dump_json(indent=2) + "\n").encode())
    write_checkpoint(folder / MODEL, model.state_dict(), portable)


def load_saved(folder: Path, device: torch.device) -> tuple[Model, Settings]:
    """Load what `save_model` wrote, in evaluation mode.

    Raises:
        FastdrawError: a file is missing or damaged, or the two do not belong together.
    """
    try:
        settings = parse_settings((folder / CONFIG).read_text("utf-8"))
    except (FastdrawError, UnicodeDecodeError, OSError) as error:
        raise FastdrawError(f"{folder / CONFIG}: {error}") from None
    return model_of(settings, read_checkpoint(folder / MODEL, settings), folder / MODEL, device), settings
