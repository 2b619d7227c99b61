"""Drawing digit sequences with a trained model: what sample, evaluate and demo share."""

from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from fastdraw.data.multidigits import SLOTS
from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    from fastdraw.models import Draw
    from fastdraw.ops import DrawTrace

CHUNK = 100


class Drawing(NamedTuple):
    """On the CPU: frames (T, B, C, H, W) in [0, 1], write windows (T, B, 5), attention over the digits (T, B, L)."""

    frames: Tensor
    windows: Tensor
    attention: Tensor


def parse_digits(text: str) -> list[int]:
    """Read digits as they are typed, left to right.

    Raises:
        FastdrawError: a character is no digit, there is none, or there are too many for an image.
    """
    for place, character in enumerate(text, 1):
        if character not in "0123456789":
            raise FastdrawError(f"--digits {text}: character {place}, {character!r}, is no digit 0 to 9")
    if not 1 <= len(text) <= SLOTS:
        raise FastdrawError(f"--digits must be 1 to {SLOTS} digits, got {len(text)}")
    return [int(character) for character in text]


def draw_steps(model: "Draw", digits: Tensor, seed: int) -> Drawing:
    """Draw digits (B, L) and return what the model did at every step."""
    noise, lengths = _noise(model, digits, torch.Generator().manual_seed(seed))
    _, trace = cast("tuple[Tensor, DrawTrace]", model.sample(digits.to(noise.device), lengths, noise, trace=True))
    return Drawing(
        trace.canvas.sigmoid().cpu(), cast(Tensor, trace.write_window).cpu(), cast(Tensor, trace.attention).cpu()
    )


def draw_images(model: "Draw", digits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw digits (B, L) and return the images (B, C, H, W) in [0, 1], on the CPU."""
    images = []
    for part in digits.split(CHUNK):
        noise, lengths = _noise(model, part, generator)
        images.append(cast(Tensor, model.sample(part.to(noise.device), lengths, noise)).sigmoid().cpu())
    return torch.cat(images)


def _noise(model: "Draw", digits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count, length = digits.shape
    noise = model.noise(count, length, generator)
    return noise, torch.full((count,), length, device=noise.device)
