"""Small images for tests: each one colour all over, or a pattern whose every part can be told."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image


def shade(number: int) -> tuple[int, int, int]:
    """A colour that tells numbers apart, and one colour channel from another."""
    return 7 * number % 256, 255 - 7 * number % 256, 90


def write_photo(path: Path, number: int = 0, size: tuple[int, int] = (12, 8)) -> None:
    """Write an image (width, height) of one shade, in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, shade(number)).save(path)


def pattern(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random pattern (height, width, 3) uint8, unlike its mirror images and turned ones."""
    coarse = np.random.default_rng(seed).integers(256, size=(3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def write_faces(folder: Path, numbers: Iterable[int]) -> Path:
    """Write NNNNNN.jpg of 178 x 218 pixels, as CelebA has them, with patterns by their numbers. Returns the folder."""
    folder.mkdir(parents=True)
    for number in numbers:
        Image.fromarray(pattern(218, 178, number)).save(folder / f"{number:06}.jpg", quality=95)
    return folder
