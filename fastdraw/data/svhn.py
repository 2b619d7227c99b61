"""SVHN, format 1: photos of whole house numbers, brought onto 32 x 64 and kept that way for the next time."""

import io
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from fastdraw.data.caches import cache_places, keep
from fastdraw.data.decoded import MODES
from fastdraw.data.digit_struct import Number, read_digit_struct
from fastdraw.data.house_numbers import HEIGHT, WIDTH, Align, clip_boxes, place_digits
from fastdraw.data.labelled import LabelledImages
from fastdraw.data.svhn_archive import fetch_svhn
from fastdraw.errors import FastdrawError
from fastdraw.files import write_atomically

SPLITS = ("train", "test", "extra")
STRUCT = "digitStruct.mat"
LONGEST = 4
VERSION = 1  # of what is made of a photo; a cache of another version is made anew


def load_svhn(
    root: Path, split: str, *, align: Align = "right", channels: int = 1, download: bool = False
) -> LabelledImages:
    """Read one split: images (N, C, 32, 64) and the digits from left to right, at most 4, in the order of the files.

    Boxes are clipped to their image; their left edges give the order of the digits. Longer numbers are left out, which
    is said on stderr. The result is kept in root, or, where that cannot be written, under XDG_CACHE_HOME; it is made
    anew where digitStruct.mat has another size or time. (A change of the images alone is not noticed.)

    Args:
        root: the folder that holds train/, test/ or extra/, as SVHN's archives unpack; it may be read-only.
        split: "train", "test" or "extra".
        align: how the digits stand on the canvas, see `place_digits`.
        channels: 1 (grey) or 3 (colour).
        download: fetch the split into root where it is missing.
    Raises:
        FastdrawError: a file is missing or broken, digits and boxes do not fit, or no number has at most 4 digits.
    """
    for name, value, known in (
        ("split", split, SPLITS),
        ("align", align, get_args(Align)),
        ("channels", channels, MODES),
    ):
        if value not in known:
            raise FastdrawError(f"unknown {name} {value!r}: expected one of {', '.join(map(str, known))}")
    struct = root / split / STRUCT
    if download and not struct.is_file():
        fetch_svhn(root, split)
    if not struct.is_file():
        raise FastdrawError(
            f"{struct} is missing: give the folder that holds SVHN's {split}/ as --root DIR, or add --download"
        )

    status = struct.stat()
    key = np.array([VERSION, status.st_size, status.st_mtime_ns])
    places = cache_places(root, f"svhn-{split}-{align}-{channels}.npz")
    cached = next((images for place in places if (images := _read_cache(place, key, channels))), None)
    if cached:
        return cached
    images = _read_split(struct, align, channels)
    _write_cache(places, key, images)
    return images


def _read_split(struct: Path, align: Align, channels: int) -> LabelledImages:
    numbers = read_digit_struct(struct)
    short = [number for number in numbers if len(number.digits) <= LONGEST]
    if not short:
        raise FastdrawError(f"{struct} holds no number of 1 to {LONGEST} digits")
    if len(short) < len(numbers):
        counts = f"{len(numbers) - len(short)} of {len(numbers)} numbers in {struct.parent}"
        print(f"note: {counts} have more than {LONGEST} digits and are left out", file=sys.stderr)

    images = np.empty((len(short), channels, HEIGHT, WIDTH), np.uint8)
    labels = np.zeros((len(short), LONGEST), np.int64)
    for index, number in enumerate(tqdm(short, struct.parent.name, unit="image", disable=None)):
        pixels, digits = _read_image(struct.parent, number, align, channels)
        images[index] = np.moveaxis(pixels, 2, 0) if channels > 1 else pixels
        labels[index, : len(digits)] = digits
    lengths = torch.tensor([len(number.digits) for number in short])
    return LabelledImages(torch.from_numpy(images), torch.from_numpy(labels), lengths)


def _read_image(folder: Path, number: Number, align: Align, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The image as it stands on the canvas, (32, 64) or (32, 64, 3), and its digits from left to right."""
    path = folder / number.name
    try:
        with Image.open(path, formats=["PNG"]) as file:
            photo = file.convert("RGB").convert(MODES[channels])
    except FileNotFoundError as error:
        raise FastdrawError(f"{path} is missing, and {STRUCT} names it: unpack the archive again") from error
    # Pillow says in many ways that an image is damaged, or that it is far too large.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise FastdrawError(f"{path} is not a whole PNG image ({reason}): unpack the archive again") from error
    order = np.argsort(number.boxes[:, 0], kind="stable")
    try:
        corners = clip_boxes(number.boxes[order], photo.width, photo.height)
    except ValueError as error:
        raise FastdrawError(f"{path} {error}: are this image and {STRUCT} of one set?") from error
    return place_digits(photo, corners, align), number.digits[order]


def _read_cache(path: Path, key: np.ndarray, channels: int) -> LabelledImages | None:
    """What lies in a cache, or None where there is none, or one of other files, or a damaged one."""
    try:
        # numpy checks the sums of a file in a zip as it reads it to the end.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
            if not np.array_equal(data["key"], key):
                return None
            images = LabelledImages(*(torch.from_numpy(data[name]) for name in ("images", "labels", "lengths")))
    except Exception:  # zipfile and numpy raise almost anything on a damaged file; it is but a copy
        return None
    return images if images.images.shape[1:] == (channels, HEIGHT, WIDTH) else None


def _write_cache(places: list[Path], key: np.ndarray, images: LabelledImages) -> None:
    data = io.BytesIO()
    np.savez(data, key=key, images=images.images.numpy(), labels=images.labels.numpy(), lengths=images.lengths.numpy())
    keep(places, lambda place: write_atomically(place, data.getvalue()), "SVHN is read anew next time")
