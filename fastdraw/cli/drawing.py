"""Drawing with a trained model what a user asks for: what sample, figures, evaluate and demo share."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast

import torch
from torch import Tensor

from fastdraw.data.captions import WORDS, encode
from fastdraw.data.multidigits import SLOTS
from fastdraw.errors import FastdrawError
from fastdraw.models import DrawConfig

if TYPE_CHECKING:
    from fastdraw.models import Draw
    from fastdraw.ops import DrawOutput, DrawTrace
    from fastdraw.training import Settings


class Drawing(NamedTuple):
    """On the CPU: frames (T, B, C, H, W) in [0, 1], write windows (T, B, 5), attention over the labels (T, B, L).

    None stands for what a model lacks.
    """

    frames: Tensor
    windows: Tensor | None
    attention: Tensor | None

    def first(self, count: int) -> "Drawing":
        """The first `count` drawings."""
        return Drawing(self.frames[:, :count], *(part if part is None else part[:, :count] for part in self[1:]))


class Wish(NamedTuple):
    """What is to be drawn: labels (L,) int64, what each of them is called, and all of them as a text."""

    labels: Tensor
    names: list[str]
    text: str


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


def told(settings: "Settings") -> Literal["digits", "caption", "nothing"]:
    """What the model of a run has to be told to draw an image."""
    if not isinstance(settings.model, DrawConfig) or settings.model.labels == "none":
        return "nothing"
    return "caption" if settings.data.source == "captions" else "digits"


def wish_for(settings: "Settings", run: Path, digits: str | None, caption: str | None) -> Wish:
    """Read what the model of a run is to draw: digits, a caption or neither, as it takes.

    Raises:
        FastdrawError: as `parse_digits` or `encode`; the model takes something else, or has no position for so many.
    """
    given = "digits" if digits is not None else "caption" if caption is not None else "nothing"
    expected = told(settings)
    if given != expected or (digits is not None and caption is not None):
        hint = {
            "digits": "is told digits: give --digits, such as --digits 157, and no --caption",
            "caption": 'is told a caption: give --caption, such as --caption "the digit 7 is at the top left of the '
            'image .", and no --digits',
            "nothing": "is told nothing of what to draw: give neither --digits nor --caption",
        }
        raise FastdrawError(f"the model of {run} {hint[expected]}")
    if digits is not None:
        labels = torch.tensor(digits_for(settings, run, digits))
        return Wish(labels, list(digits), digits)
    if caption is not None:
        labels = encode(caption)
        _check_positions(settings, len(labels), "words", caption)
        names = [WORDS[label] for label in labels.tolist()]
        return Wish(labels, names, " ".join(names))
    return Wish(torch.zeros(settings.data.longest, dtype=torch.int64), [], "")


def digits_for(settings: "Settings", run: Path, text: str) -> list[int]:
    """Read digits that the model of a run, which is told digits, is to draw; print a note where it learned from fewer.

    Raises:
        FastdrawError: as `parse_digits`, or the model has no position for so many.
    """
    digits = parse_digits(text)
    _check_positions(settings, len(digits), "digits", text)
    longest = settings.data.longest
    if len(digits) > longest:
        print(f"note: {run} was trained on images of up to {longest} digits; these {len(digits)} may be illegible")
    return digits


def draw_steps(model: "Draw", labels: Tensor, seed: int) -> Drawing:
    """Draw labels (B, L) and return what the model did at every step."""
    noise, lengths = _noise(model, labels, torch.Generator().manual_seed(seed))
    _, trace = cast("tuple[Tensor, DrawTrace]", model.sample(labels.to(noise.device), lengths, noise, trace=True))
    attends = model.encoder is not None and model.encoder.attended
    attention = _to_cpu(trace.attention) if attends else None
    return Drawing(trace.canvas.sigmoid().cpu(), _to_cpu(trace.write_window), attention)


@torch.no_grad()
def redraw_steps(model: "Draw", image: Tensor, labels: Tensor, lengths: Tensor, seed: int) -> Redrawing:
    """Encode images (B, C, H, W) of labels (B, L), draw them again and return what the model did at every step."""
    count, length = labels.shape
    noise = model.noise(count, length, torch.Generator().manual_seed(seed))
    inputs = (tensor.to(noise.device) for tensor in (image, labels, lengths))
    _, trace = cast("tuple[DrawOutput, DrawTrace]", model(*inputs, noise, trace=True))
    return Redrawing(trace.canvas.sigmoid().cpu(), _to_cpu(trace.read_window), _to_cpu(trace.write_window))


def _check_positions(settings: "Settings", length: int, what: str, text: str) -> None:
    model = settings.model
    if isinstance(model, DrawConfig) and model.labels == "digits" and length > model.positions:
        raise FastdrawError(
            f"--{'digits' if what == 'digits' else 'caption'} {text} are {length} {what}, and the model knows "
            f"{model.positions} position(s): ask for fewer, or train with more --model.positions"
        )


def _noise(model: "Draw", labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    count, length = labels.shape
    noise = model.noise(count, length, generator)
    return noise, torch.full((count,), length, device=noise.device)


def _to_cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()
