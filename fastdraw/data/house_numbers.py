"""House numbers out of photos, onto 32 x 64: in one piece at the right, digit by digit in slots, or stretched."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Align = Literal["right", "slots", "goodfellow"]
Box = tuple[float, float, float, float]

HEIGHT, WIDTH, SLOT_WIDTH = 32, 64, 16
FILL = 0.9  # share of the height that digits take
MARGIN = 2  # columns that stay free of digits at either side
GROWTH = 1.3  # of both sides of the box in "goodfellow"
FILTER_RADIUS = 2  # of the bicubic filter, in source pixels where it enlarges, in target pixels where it reduces


def clip_boxes(boxes: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.float64]:
    """The part of every box (L, 4: left, top, width, height) within the image, as (L, 4: left, top, right, bottom).

    Raises:
        ValueError: a box has nothing in common with the image.
    """
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    corners = corners.clip(0, (width, height, width, height))
    for box, (left, top, right, bottom) in zip(boxes.tolist(), corners, strict=True):
        if not (left < right and top < bottom):
            said = ", ".join(f"{name} {x:g}" for name, x in zip(("left", "top", "width", "height"), box, strict=True))
            raise ValueError(f"has a box ({said}) outside its {width} x {height} pixels")
    return corners


def place_digits(photo: Image.Image, corners: npt.NDArray[np.float64], align: Align) -> npt.NDArray[np.uint8]:
    """Bring the digits in these boxes onto (32, 64), or (32, 64, 3) where the photo is in colour.

    Args:
        photo: grey ("L") or colour ("RGB").
        corners (L, 4): left, top, right, bottom of every digit from the left, within the photo.
        align:
            "right": one similarity transform brings the box around all digits to 90 % of the height, or to 60 columns
                if it is wider, its right edge to column 62 and its centre to row 16. The photo goes on around it.
            "slots": each digit fills 90 % of the height or the width of a slot 16 columns wide, unstretched and in its
                centre; its own pixels alone, whose edge goes on beyond its box. The slots left of the number are black.
            "goodfellow": the box around all digits, grown by 30 % in both directions, is stretched to the whole.
        Beyond the photo, its edge goes on.
    """
    if align == "slots":
        return _fill_slots(photo, corners)
    left, top = corners[:, :2].min(0)
    right, bottom = corners[:, 2:].max(0)
    middle = (top + bottom) / 2
    if align == "goodfellow":
        half_width, half_height, centre = GROWTH * (right - left) / 2, GROWTH * (bottom - top) / 2, (left + right) / 2
        box = (centre - half_width, middle - half_height, centre + half_width, middle + half_height)
    else:
        scale = min(FILL * HEIGHT / (bottom - top), (WIDTH - 2 * MARGIN) / (right - left))
        end, half_height = right + MARGIN / scale, HEIGHT / 2 / scale
        box = (end - WIDTH / scale, middle - half_height, end, middle + half_height)
    return _resample(photo, box, WIDTH)


def _fill_slots(photo: Image.Image, corners: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    canvas = np.zeros((HEIGHT, WIDTH, *np.asarray(photo).shape[2:]), np.uint8)
    for place, (left, top, right, bottom) in enumerate(corners):
        bounds = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
        digit = photo.crop(bounds)
        scale = FILL * min(HEIGHT / digit.height, SLOT_WIDTH / digit.width)
        x, y, half_width, half_height = digit.width / 2, digit.height / 2, SLOT_WIDTH / 2 / scale, HEIGHT / 2 / scale
        start = WIDTH - SLOT_WIDTH * (len(corners) - place)
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        canvas[:, start : start + SLOT_WIDTH] = _resample(digit, box, SLOT_WIDTH)
    return canvas


def _resample(photo: Image.Image, box: Box, width: int) -> npt.NDArray[np.uint8]:
    """A box of the photo (left, top, right, bottom), which may reach out of it, on 32 x width, antialiased."""
    left, top, right, bottom = box
    reach_x = FILTER_RADIUS * max(1, (right - left) / width)
    reach_y = FILTER_RADIUS * max(1, (bottom - top) / HEIGHT)
    before_x, before_y = math.ceil(max(0, reach_x - left)), math.ceil(max(0, reach_y - top))
    after_x = math.ceil(max(0, right + reach_x - photo.width))
    after_y = math.ceil(max(0, bottom + reach_y - photo.height))

    pixels = np.asarray(photo)
    padding = ((before_y, after_y), (before_x, after_x), (0, 0))
    wider = Image.fromarray(np.pad(pixels, padding[: pixels.ndim], "edge"))
    moved = (left + before_x, top + before_y, right + before_x, bottom + before_y)
    return np.asarray(wider.resize((width, HEIGHT), Image.Resampling.BICUBIC, box=moved))
