"""Drawing digit sequences with a trained model: what sample, figures, evaluate and demo share."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor

from fastdraw.data.multidigits import SLOTS
from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    from fastdraw.models import Draw
    from fastdraw.ops import DrawOutput, DrawTrace
    from fastdraw.training import Settings


class Drawing(NamedTuple):
    """On the CPU: frames (T, B, C, H, W) in [0, 1], write windows (T, B, 5), attention over the digits (T, B, L).

    None stands for what a model lacks.
    """

    frames: Tensor
    windows: Tensor | None
    attention: Tensor | None

    def first(self, count: int) -> "Drawing":
        """The first `count` drawings."""
        return Drawing(self.frames[:, :count], *(part if part is None else part[:, :count] for part in self[1:]))


class Redrawing(NamedTuple):
    """On the CPU: frames (T, B, C, H, W) in [0, 1], read and write windows (T, B, 5); None where a model has none."""

    frames: Tensor
    read_windows: Tensor | None
    write_windows: Tensor | None


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


def digits_for(settings: "Settings", run: Path, text: str) -> list[int]:
    """Read digits that the model of a run is to draw; print a note where it was not trained on as many.

    Raises:
        FastdrawError: as `parse_digits`, or the model has no position for so many.
    """
    digits = parse_digits(text)
    if len(digits) > settings.model.positions:
        raise FastdrawError(
            f"--digits {text} are {len(digits)} digits, and the model knows "
            f"{settings.model.positions} position(s): ask for fewer, or train with more --model.positions"
        )
    longest = settings.data.longest
    if len(digits) > longest:
        print(f"note: {run} was trained on images of up to {longest} digits; these {len(digits)} may be illegible")
    return digits


def draw_steps(model: "Draw", digits: Tensor, seed: int) -> Drawing:
    """Draw digits (B, L) and return what the model did at every step."""
    noise, lengths = _noise(model, digits, torch.Generator().manual_seed(seed))
    _, trace = cast("tuple[Tensor, DrawTrace]", model.sample(digits.to(noise.device), lengths, noise, trace=True))
    attends = model.encoder is not None and model.encoder.attended
    attention = _to_cpu(trace.attention) if attends else None
    return Drawing(trace.canvas.sigmoid().cpu(), _to_cpu(trace.write_window), attention)


@torch.no_grad()
def redraw_steps(model: "Draw", image: Tensor, digits: Tensor, lengths: Tensor, seed: int) -> Redrawing:
    """Encode images (B, C, H, W) of digits (B, L), draw them again and return what the model did at every step."""
    count, length = digits.shape
    noise = model.noise(count, length, torch.Generator().manual_seed(seed))
    inputs = (tensor.to(noise.device) for tensor in (image, digits, lengths))
    _, trace = cast("tuple[DrawOutput, DrawTrace]", model(*inputs, noise, trace=True))
    return Redrawing(trace.canvas.sigmoid().cpu(), _to_cpu(trace.read_window), _to_cpu(trace.write_window))


def _noise(model: "Draw", digits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count, length = digits.shape
    noise = model.noise(count, length, generator)
    return noise, torch.full((count,), length, device=noise.device)


def _to_cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()
