"""A run so small that a step takes milliseconds."""

from pathlib import Path
from typing import Any

from fastdraw.training import Settings, resolve

TINY: dict[str, Any] = {
    "model.hidden": 16,
    "model.latent": 4,
    "model.n_read": 3,
    "model.n_write": 3,
    "model.align": 16,
    "model.steps_per_label": 2,
    "data.lengths": (1, 1, 0, 0),
    "optimiser.lr": 0.01,
    "optimiser.warmup": 3,
    "optimiser.ema": 0.9,
    "steps": 12,
    "batch_size": 4,
    "log_every": 1,
    "evaluate_every": 5,
    "checkpoint_every": 4,
    "test_batches": 1,
    "device": "cpu",
    "threads": 1,
}

VAE = "multistage-vae-mnist"
TINY_VAE: dict[str, Any] = {name: value for name, value in TINY.items() if not name.startswith(("model.", "data."))} | {
    "model.latent": 3,
    "model.widths": (2, 3, 4),
    "model.blocks": 2,
    "model.refiner_width": 3,
    "model.refiners": 2,
}


def tiny(**overrides: Any) -> Settings:
    """The tiny settings, some changed; a double underscore stands for the dot of a name."""
    return resolve(overrides=TINY | {name.replace("__", "."): value for name, value in overrides.items()})


def tiny_arguments(**overrides: Any) -> list[str]:
    """The same as arguments of the command line."""
    return _arguments(TINY | overrides)


def tiny_vae(**overrides: Any) -> Settings:
    """A tiny multi-stage VAE with two refiners, some settings changed as in `tiny`."""
    return resolve(VAE, TINY_VAE | {name.replace("__", "."): value for name, value in overrides.items()})


def tiny_vae_arguments(**overrides: Any) -> list[str]:
    """The same as arguments of the command line."""
    return ["--preset", VAE, *_arguments(TINY_VAE | overrides)]


def _arguments(settings: dict[str, Any]) -> list[str]:
    arguments = []
    for name, value in settings.items():
        values = value if isinstance(value, tuple) else (value,)
        arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
    return arguments


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
