"""In what order digits emerge on a canvas: one by one, as seqDRAW is said to draw them, or at once, as rnnDRAW.

A drawing of L digits is cut into its L rightmost slots. What a slot is at a step is measured in pixel values in [0, 1],
as one sees them, from the canvas before the first step to the one after the last.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.intervals import Estimate, mean, share


class Emergence(NamedTuple):
    """What was measured on B drawings of L digits in T steps.

    Attributes:
        half, most (B, L): int64, the step from which on at least 50 % and 90 % of a slot's final change is there.
        spread (B,): from the first to the last slot to be half there, in shares of all T steps: 0 if all are at once,
            (L - 1)/L if each has an L-th of the steps to itself.
        one_by_one (B,): 1 if in every step one slot alone changes, 1/L if all slots change in step; see `emergence`.
        left_to_right, right_to_left (B,): bool, the slots are half there in that order, no two at the same step.
    """

    half: Tensor
    most: Tensor
    spread: Tensor
    one_by_one: Tensor
    left_to_right: Tensor
    right_to_left: Tensor

    def summary(self) -> dict[str, Estimate | list[Estimate]]:
        """Means and shares over the drawings, and for each slot from the left the mean of `half` and `most`."""
        return {
            "spread": mean(self.spread),
            "one_by_one": mean(self.one_by_one),
            "left_to_right": share(self.left_to_right),
            "right_to_left": share(self.right_to_left),
            "half": [mean(steps) for steps in self.half.T],
            "most": [mean(steps) for steps in self.most.T],
        }


def emergence(frames: Tensor, start: Tensor, length: int, slot_width: int) -> Emergence:
    """Measure when each digit emerges.

    With x_t the pixels of a slot after step t, its share that is there is that of its change along the final one,

        p_t = <x_t - x_0, x_T - x_0> / |x_T - x_0|^2,

    0 at first and 1 at last. With

        u_t = |x_t - x_(t-1)|_1 / sum over s of |x_s - x_(s-1)|_1,

    so that a slot of little ink counts as much as one of much,

        one_by_one = 1/L sum over t of max over slots of u_t.

    A slot that never changes counts as there at step 1.

    Args:
        frames (T, B, C, H, W): the canvas after each step, in [0, 1].
        start (C, H, W): the canvas before the first.
        length: L, digits in a drawing, at least 2, at the right end of the image.
        slot_width: of a digit, in pixels.
    Raises:
        FastdrawError: fewer than two digits, or more than fit into the image.
    """
    slots = _slots(torch.cat([start.expand_as(frames[:1]), frames]).double(), length, slot_width)  # (T + 1, B, L, P)
    change = slots - slots[0]
    size = change[-1].square().sum(-1)  # (B, L)
    there = (change[1:] * change[-1]).sum(-1) / size.clamp(min=torch.finfo(size.dtype).tiny)
    half, most = (_step_of(there.masked_fill(size == 0, 1), part) for part in (0.5, 0.9))

    moved = slots.diff(dim=0).abs().sum(-1)  # (T, B, L)
    moved[0] += moved.sum(0) == 0
    first, last = half[:, :-1], half[:, 1:]
    return Emergence(
        half,
        most,
        spread=(half.amax(1) - half.amin(1)) / len(frames),
        one_by_one=(moved / moved.sum(0)).amax(2).sum(0) / length,
        left_to_right=(first < last).all(1),
        right_to_left=(first > last).all(1),
    )


class Focus(NamedTuple):
    """How a model attended to L digits in B drawings.

    Attributes:
        largest (B,): the mean over steps of the largest weight: 1 if one digit has all at every step, at least 1/L.
        steps (B, L): the share of the steps at which a digit has the largest weight; the leftmost of equal ones.
    """

    largest: Tensor
    steps: Tensor

    def summary(self) -> dict[str, Estimate | list[Estimate]]:
        """Means over the drawings."""
        return {"largest": mean(self.largest), "steps": [mean(digit) for digit in self.steps.T]}


def focus(attention: Tensor) -> Focus:
    """Measure how sharply the weights (T, B, L) choose a digit, and for how many steps each."""
    chosen = torch.nn.functional.one_hot(attention.argmax(-1), attention.shape[-1])
    return Focus(attention.double().amax(-1).mean(0), chosen.double().mean(0))


def _slots(images: Tensor, length: int, slot_width: int) -> Tensor:
    """The pixels (..., L, P) of the rightmost slots of images (..., C, H, W), from the left."""
    width = images.shape[-1]
    if not 2 <= length <= width // slot_width:
        raise FastdrawError(
            f"an order takes 2 to {width // slot_width} digits of {slot_width} pixels in {width}, got {length}"
        )
    slots = images[..., width - length * slot_width :].unflatten(-1, (length, slot_width))
    return slots.movedim(-2, -4).flatten(-3)


def _step_of(there: Tensor, part: float) -> Tensor:
    """The step, from 1, from which on shares (T, B, L) stay at least as large as part; the last at the latest."""
    short = (there < part)[:-1]
    steps = torch.arange(1, len(short) + 1, device=there.device)[:, None, None]
    return 1 + (short * steps).amax(0) if len(short) else torch.ones_like(there[0], dtype=torch.int64)
