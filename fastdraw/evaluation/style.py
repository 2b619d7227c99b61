"""The style of drawn digits: what it is like in each slot, and whether it is one within an image.

The paper says that digits and background keep their grey level while a number is drawn, and differ from run to run.
The intra-class correlation says how true that is of any set of images, data or drawn: near 1, if what differs between
images is the same in all slots of one; near 0, if each slot goes its own way, as in multi-digit MNIST, where each digit
is another writer's.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.intervals import Array, bootstrap

MEASURES = ("background", "stroke", "thickness", "slant")


class Consistency(NamedTuple):
    """How much of a measure's variance is between images; None where the measure is the same everywhere.

    Attributes:
        icc: intra-class correlation, with its 95 % bootstrap interval over images from `low` to `high`.
        between: standard deviation of the means of the images, in units of the measure.
        within: standard deviation of the slots of one image about their mean.
        images: how many.
    """

    icc: float | None
    low: float | None
    high: float | None
    between: float
    within: float
    images: int


def style(images: Tensor, length: int, slot_width: int) -> dict[str, Tensor]:
    """Measure the digits in the rightmost `length` slots of images (B, C, H, W) in [0, 1]; colours are averaged.

    A digit's ink w is how far a pixel is from the background, brighter or darker.

        background    the median of the slot, in [0, 1]
        stroke        sum w x / sum w, the grey level of the digit, in [0, 1]
        thickness     2 sum w / sum |grad w|, in pixels: of a long straight stroke its width, however blurred it is
        slant         minus the covariance of x and y under w over the variance of y: pixels to the right per pixel up

    Returns:
        each measure by its name, (B, L) float64; in a slot without ink the stroke is the background, and thickness and
        slant are 0.
    Raises:
        FastdrawError: no digit, or more than fit into the image.
    """
    width = images.shape[-1]
    if not 1 <= length <= width // slot_width:
        raise FastdrawError(
            f"expected 1 to {width // slot_width} digits of {slot_width} pixels in {width}, got {length}"
        )
    grey = images.double().mean(1)[..., width - length * slot_width :]
    slots = grey.unflatten(-1, (length, slot_width)).transpose(1, 2)  # (B, L, H, slot_width)

    background = slots.flatten(2).median(-1).values
    ink = (slots - background[..., None, None]).abs()
    amount = ink.sum((2, 3))
    # Ink ends at the edge of a slot: what lies beyond belongs to another digit.
    framed = torch.nn.functional.pad(ink, (1, 1, 1, 1))
    down, right = framed.diff(dim=2)[..., :-1], framed.diff(dim=3)[..., :-1, :]
    edges = (down.square() + right.square()).sqrt().sum((2, 3))

    y, x = (torch.arange(size, dtype=ink.dtype, device=ink.device) for size in ink.shape[2:])
    rows, columns = ink.sum(3), ink.sum(2)  # (B, L, H), (B, L, slot_width)
    y_mean, x_mean = _ratio(rows @ y, amount), _ratio(columns @ x, amount)
    covariance = ((ink @ x) @ y) - amount * x_mean * y_mean
    variance = rows @ y.square() - amount * y_mean.square()
    return {
        "background": background,
        "stroke": torch.where(amount > 0, _ratio((ink * slots).sum((2, 3)), amount), background),
        "thickness": 2 * _ratio(amount, edges),
        "slant": -_ratio(covariance, variance),
    }


def consistency(measure: Tensor, digits: Tensor) -> Consistency:
    """How much of a measure (B, L), L >= 2, is the style of an image rather than of a slot.

    What a digit at its place is like on average is taken out first, as a 1 is thin in every hand; with n images of each
    this costs the correlation an n-th of itself. The mean squares of what is left, between images and within them, give

        icc = (between - within) / (between + (L - 1) within),

    which is 1 if all slots of an image deviate alike, 0 if they have nothing to do with each other, and negative if one
    makes up for another.

    Args:
        digits (B, L): int64, what stands in each slot.
    Raises:
        FastdrawError: one image or one slot alone.
    """
    images, length = measure.shape
    if images < 2 or length < 2:
        raise FastdrawError(f"style is compared over two images and two slots at least, got {images} and {length}")
    rest = _without_digits(measure.double(), digits).cpu().numpy()
    between, within = _mean_squares(rest[None])
    deviations = float(np.sqrt(between[0] / length)), float(np.sqrt(within[0]))
    # What is left of a constant after its mean is rounding, and has no correlation.
    if np.ptp(rest) <= 1e-12 * float(measure.abs().max()):
        return Consistency(None, None, None, 0.0, 0.0, images)
    found = bootstrap(_icc, rest / rest.std())
    return Consistency(found.value, found.low, found.high, *deviations, images)


def style_consistency(images: Tensor, digits: Tensor, slot_width: int) -> dict[str, Consistency]:
    """`consistency` of every measure of images (B, C, H, W) of digits (B, L), by its name."""
    measures = style(images, digits.shape[1], slot_width)
    return {name: consistency(measure, digits) for name, measure in measures.items()}


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.masked_fill(whole <= 0, 1), 0)


def _without_digits(measure: Tensor, digits: Tensor) -> Tensor:
    """Measure (B, L) less the mean of its digit and place."""
    member = one_hot(digits, 10).to(measure)  # (B, L, 10)
    means = torch.einsum("bld,bl->ld", member, measure) / member.sum(0).clamp(min=1)
    return measure - torch.einsum("bld,ld->bl", member, means)


def _mean_squares(values: Array) -> tuple[Array, Array]:
    """Between and within images, of sets of values (R, B, L), each (R,)."""
    _, images, length = values.shape
    means = values.mean(2)
    between = length * means.var(1, ddof=1)
    # One degree of freedom of each slot went with the mean of its digit.
    within = np.square(values - means[:, :, None]).sum((1, 2)) / ((images - 1) * (length - 1))
    return between, within


def _icc(values: Array) -> Array:
    between, within = _mean_squares(values)
    whole = between + (values.shape[2] - 1) * within
    # Where few images differ, those drawn anew may be the same but for rounding: no correlation.
    return np.where(whole > 1e-12, between - within, 0) / np.maximum(whole, 1e-12)
