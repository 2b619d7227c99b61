"""Every preset's model on the fused backend and on the plain loop: the same losses, canvases and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.utils._pytree import tree_map

import fastdraw
from fastdraw import dispatch
from fastdraw.models import Draw, DrawConfig
from fastdraw.training import preset_names, resolve
from tests.ops.checking import assert_matches_reference
from tests.training.test_presets import OVERLAYS

PRESETS = [name for name in preset_names() if name not in OVERLAYS and isinstance(resolve(name).model, DrawConfig)]
HEIGHT, WIDTH = 7, 11  # odd, and neither is a multiple of a vector
LABELS, LENGTHS = torch.tensor([[3, 0, 7], [9, 0, 0], [1, 2, 0]]), torch.tensor([3, 1, 2])
STEPS = 6


def shrunk(config: DrawConfig, **changes: Any) -> DrawConfig:
    """The same structure at a tiny size: three labels take six steps."""
    tiny = {
        "hidden": 6,
        "latent": 3,
        "n_read": min(config.n_read, 2),
        "n_write": min(config.n_write, 3),
        "align": 5,
        "label_hidden": 4,
        "steps_per_label": STEPS // 3,
        "steps_per_image": min(config.steps_per_image, STEPS),
        "height": HEIGHT,
        "width": WIDTH,
    }
    return DrawConfig(**config.model_dump() | tiny | changes)


def assert_backends_agree(config: DrawConfig, lengths: Tensor, dtype: torch.dtype) -> None:
    """Hold nll, kl, canvas, and the gradients of weights, image and noise against the reference's."""
    model, generator = Draw(config), torch.Generator().manual_seed(2)
    model.set_canvas(torch.rand(config.channels, HEIGHT, WIDTH, generator=generator))
    # Twice as large as at first, when words are hardly told apart and what they differ by is mostly rounding.
    weights = {name: 2 * weight.detach() for name, weight in model.named_parameters()}
    image = torch.rand(3, config.channels, HEIGHT, WIDTH, generator=generator)
    given = {"weights": weights, "image": image, "noise": model.noise(3, 3, generator)}

    def make(dtype: torch.dtype) -> Any:
        return tree_map(lambda x: x.to(dtype), given)

    def fused(weights: dict[str, Tensor], image: Tensor, noise: Tensor) -> Any:
        return functional_call(model.to(image.dtype), weights, (image, LABELS, lengths, noise))

    def plain(**arguments: Any) -> Any:
        with fastdraw.backend("reference"):
            return fused(**arguments)

    assert_matches_reference(fused, plain, make, dtype, steps=STEPS)


@pytest.mark.usefixtures("own_choice")
@pytest.mark.skipif(dispatch.extension_refusal is not None, reason="the C++ extension is not built")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("lengths", [LENGTHS, torch.full((3,), 3)], ids=["mixed", "equal"])
@pytest.mark.parametrize("preset", PRESETS)
def test_fused_and_plain_models_agree(preset: str, lengths: Tensor, dtype: torch.dtype) -> None:
    config = shrunk(resolve(preset).model)
    assert dispatch.preferred("draw_rollout", {"cpu"}, "cpu", "float64") == "cpu"
    assert_backends_agree(config, lengths, dtype)


@pytest.mark.usefixtures("own_choice")
@pytest.mark.skipif(dispatch.extension_refusal is not None, reason="the C++ extension is not built")
@pytest.mark.parametrize("labels", ["digits", "last", "words", "none"])
def test_fused_and_plain_models_agree_in_colour(labels: str) -> None:
    config = shrunk(DrawConfig(labels=labels, channels=3), n_write=2 if labels == "digits" else 0)
    assert_backends_agree(config, LENGTHS, torch.float32)
