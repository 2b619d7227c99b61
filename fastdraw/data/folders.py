"""Any folder of images as a data set, and single images by their names."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastdraw.data.decoded import decode_image, load_decoded
from fastdraw.data.labelled import LabelledImages
from fastdraw.errors import FastdrawError

SPLITS = ("train", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
HELD_OUT = 10


def load_image_folder(root: Path, split: str, size: tuple[int, int], channels: int = 3) -> LabelledImages:
    """Read one split of the PNG, JPEG, WebP and BMP files in a folder and its sub-folders, sorted by name.

    Where root holds both train/ and test/, these are the splits; otherwise the first of every ten images is held out
    for testing. Files of other names, and all whose name, or a sub-folder's, starts with a dot, are left out. How an
    image is brought to its size, and what is kept for the next time: see `load_decoded`.

    Args:
        root: the folder; it may be read-only.
        split: "train" or "test".
        size: height and width of the images.
        channels: 1 (grey) or 3 (colour).
    Returns:
        images (N, C, H, W), all with the one label 0.
    Raises:
        FastdrawError: there is no such folder, it holds no image, or fewer than 2 that are to be split, or one of them
            cannot be read; a size below 1, or other channels.
    """
    if split not in SPLITS:
        raise FastdrawError(f'unknown split {split!r}: expected "train" or "test"')
    if not root.is_dir():
        raise FastdrawError(f"{root} is no folder: give a folder of images as --root DIR")
    if all((root / name).is_dir() for name in SPLITS):
        files = _images_in(root / split)
    else:
        files = _images_in(root)
        if len(files) == 1:
            raise FastdrawError(f"{root} holds one image: at least 2 are needed, one of them to test on")
        files = [path for place, path in enumerate(files) if (place % HELD_OUT == 0) == (split == "test")]
    return load_decoded(root, f"folder-{split}", files, size, channels)


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Files in the order in which they are named, and in the place of a folder the images in it, sorted by name.

    Raises:
        FastdrawError: there is no such path, or no image in a folder.
    """
    found = []
    for path in paths:
        if not path.is_file() and not path.is_dir():
            raise FastdrawError(f"{path} is missing, or is no file: expected an image, or a folder of images")
        found += _images_in(path) if path.is_dir() else [path]
    return found


def read_images(files: Sequence[Path], size: tuple[int, int], channels: int) -> Tensor:
    """Images (N, C, H, W) uint8 of N >= 1 files, brought to height and width as `load_decoded` does.

    Raises:
        FastdrawError: a file cannot be read or is no whole image.
    """
    pixels = np.stack([np.frombuffer(decode_image(path, size, channels), np.uint8) for path in files])
    return torch.from_numpy(pixels.reshape(len(files), channels, *size))


def _images_in(folder: Path) -> list[Path]:
    """All image files in a folder and its sub-folders."""

    def stop(error: OSError) -> None:
        raise FastdrawError(f"{error.filename} cannot be read: {error.strerror}") from error

    found = []
    for place, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    if not found:
        raise FastdrawError(f"{folder} holds no image: expected files whose names end in {', '.join(SUFFIXES)}")
    return sorted(found)
