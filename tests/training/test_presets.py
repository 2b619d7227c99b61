"""Every preset learns: 300 steps of its own model on its own data, at a small size."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdraw.models import Draw, Model, VaeConfig
from fastdraw.training import Settings, held_out_source, load_model, preset_names, resolve, train
from fastdraw.training.bound import measure_terms
from fastdraw.training.sources import Source, training_source
from fastdraw.training.state import TrainingState
from tests.data.svhn import house_numbers, write_svhn

OVERLAYS = {
    "small-mnist": "seqdraw-cur-mnist",
    "small-svhn": "seqdraw-cur-svhn",
    "small-vae-mnist": "multistage-vae-mnist",
    "small-vae-celeba": "multistage-vae-celeba",
    "msvae-code": "multistage-vae-celeba",
}
PRESETS = [f"{OVERLAYS[name]}+{name}" if name in OVERLAYS else name for name in preset_names()]
SMALL: dict[str, Any] = {
    "model.latent": 8,
    "optimiser.lr": 0.01,
    "optimiser.warmup": 10,
    "optimiser.ema": 0.9,
    "steps": 300,
    "batch_size": 8,
    "log_every": 300,
    "evaluate_every": 300,
    "checkpoint_every": 300,
    "test_batches": 1,
    "device": "cpu",
    "threads": 1,
}
SMALL_DRAW = {"model.hidden": 32, "model.align": 8, "model.label_hidden": 16, "model.steps_per_label": 2}
SMALL_VAE = {"model.hidden": (32,), "model.refiner_width": 4, "model.blocks": 2, "optimiser.lr": 0.003}
# The networks of faces learn digits: none are made here that 300 steps could learn.
DIGITS = {"data.source": "digits", "data.channels": 1, "model.channels": 1, "model.height": 28, "model.width": 28}
# Windows of 2 x 2 and 5 x 5 pixels find the digit only after so many glimpses.
LARGER = {"draw-mnist": {"model.hidden": 64, "model.steps_per_image": 8, "batch_size": 32, "optimiser.lr": 0.005}}
BATCHES = 4


@pytest.fixture(scope="module")
def svhn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("svhn")
    for seed, split in enumerate(("train", "test")):
        write_svhn(root, split, house_numbers(60, seed))
    return root


def small(preset: str, svhn: Path) -> Settings:
    """The preset at a small size: what it is made of stays as it is."""
    full = resolve(preset)
    if isinstance(full.model, VaeConfig):
        sizes = SMALL_VAE | {"model.widths": (8,) * len(full.model.widths)}
        return resolve(preset, SMALL | sizes | (DIGITS if full.data.source == "celeba" else {}))
    sizes = SMALL_DRAW | ({"model.steps_per_image": 4} if full.model.steps_per_image else {}) | LARGER.get(preset, {})
    return resolve(preset, SMALL | sizes | ({"data.root": svhn} if full.data.source == "svhn" else {}))


def least_nll(source: Source, settings: Settings) -> float:
    """What the NLL of an image cannot fall below, in nats: the entropy of its pixels, or a Gaussian's at its mean."""
    images = torch.cat([source.batch(index).image for index in range(BATCHES)]).double()
    if isinstance(settings.model, VaeConfig) and settings.model.likelihood == "gaussian":
        return images[0].numel() * math.log(settings.model.sigma * math.sqrt(2 * math.pi))
    return -(images.xlogy(images) + (1 - images).xlogy(1 - images)).sum().item() / len(images)


@pytest.mark.parametrize("preset", PRESETS)
def test_300_steps_lower_the_loss(preset: str, svhn: Path, tmp_path: Path) -> None:
    settings = small(preset, svhn)
    source = held_out_source(settings, 50)
    state = TrainingState(settings, torch.device("cpu"))
    if isinstance(state.model, Draw):
        state.model.set_canvas(training_source(settings).mean_image())

    def loss(model: Model) -> float:
        return state.objective.named(measure_terms(state.objective, model, source, BATCHES))["loss"]

    before = loss(state.model.eval())

    train(settings, tmp_path / "run")

    after = loss(load_model(tmp_path / "run")[0])
    least = least_nll(source, settings)
    assert least < after < least + 0.95 * (before - least)
