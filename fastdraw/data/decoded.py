"""Images of many files as one array, which is made once and from then on mapped from a file into memory."""

import errno
import fcntl
import hashlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from fastdraw.data.caches import cache_places, keep
from fastdraw.data.labelled import LabelledImages
from fastdraw.errors import FastdrawError
from fastdraw.files import write_atomically

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MODES = {1: "L", 3: "RGB"}  # "L" is the luma of ITU-R BT.601
VERSION = 1  # of what is made of a file; a cache of another version is made anew
AHEAD = 64  # images that may be decoded before they are written

Crop = Callable[[Image.Image], Image.Image]


def load_decoded(
    root: Path, name: str, files: Sequence[Path], size: tuple[int, int], channels: int, crop: Crop | None = None
) -> LabelledImages:
    """Read files as images (N, C, H, W) in their order, all with the one label 0.

    An image is turned upright as its EXIF says and laid on white where it is transparent; then the largest part of the
    shape H x W in its centre is brought to that size, antialiased.

    All images together are kept as a file in root, or, where that cannot be written, under XDG_CACHE_HOME, and are
    mapped into memory, so there may be more than memory holds. They are made anew where a file has come, gone, or has
    another size or time.

    Args:
        root: the folder of the data set; it may be read-only.
        name: of this part of the data set, in the name of the cache.
        files: at least one, all under root.
        size: height and width of the images.
        channels: 1 (grey) or 3 (colour).
        crop: what is used of an upright image; raises a ValueError that says what is wrong with one.
    Raises:
        FastdrawError: a size below 1, other channels, or a file that cannot be read or is no whole image.
    """
    if min(size) < 1:
        raise FastdrawError(f"the size of images must be at least 1 x 1, got {size[0]} x {size[1]}")
    if channels not in MODES:
        raise FastdrawError(f"unknown channels {channels}: expected one of {', '.join(map(str, MODES))}")
    shape = (len(files), channels, *size)
    key = _key(root, files, (name, *shape))
    places = cache_places(root, f"{name}-{size[0]}x{size[1]}-{channels}.images")

    def decoded() -> Iterator[bytes]:
        return _decoded(files, partial(decode_image, size=size, channels=channels, crop=crop), name)

    images = _find(places, shape, key)
    if images is None:
        otherwise = f"the images take {math.prod(shape) / 1e6:.0f} MB of memory and are read anew next time"
        keep(places, lambda place: _write(place, shape, key, decoded()), otherwise)
        images = _find(places, shape, key)
    if images is None:
        images = np.empty(shape, np.uint8)
        for image, pixels in zip(images, decoded(), strict=True):
            image[:] = np.frombuffer(pixels, np.uint8).reshape(shape[1:])
    labels, lengths = torch.zeros(len(files), 1, dtype=torch.int64), torch.ones(len(files), dtype=torch.int64)
    return LabelledImages(torch.from_numpy(images), labels, lengths)


def _decoded(files: Sequence[Path], decode: Callable[[Path], bytes], name: str) -> Iterator[bytes]:
    """Decode files in as many threads as PyTorch uses; they come in their order."""
    with (
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        tqdm(total=len(files), desc=name, unit="image", disable=None) as bar,
    ):
        for start in range(0, len(files), AHEAD):
            for data in pool.map(decode, files[start : start + AHEAD]):
                yield data
                bar.update()


def decode_image(path: Path, size: tuple[int, int], channels: int, crop: Crop | None = None) -> bytes:
    """The pixels (C, H, W) of a file, as `load_decoded` makes them.

    Raises:
        FastdrawError: the file cannot be read or is no whole image.
    """
    try:
        with Image.open(path, formats=FORMATS) as file:
            if crop is None:
                # A JPEG much larger than asked for is read at a half, a quarter or an eighth of its size: many times as
                # fast, and from three times as large as the result on, nobody sees it.
                enough = 3 * max(size) / min(file.size)
                file.draft(None, (math.ceil(enough * file.width), math.ceil(enough * file.height)))
            photo = _plain(ImageOps.exif_transpose(file)).convert(MODES[channels])
    except UnidentifiedImageError as error:
        raise FastdrawError(f"{path} is no image in one of {', '.join(FORMATS)}: mend it or take it away") from error
    except Exception as error:  # in many ways Pillow says that an image is damaged, or that it is far too large
        reason = " ".join(str(error).split())
        raise FastdrawError(f"{path} is no whole image ({reason}): mend it or take it away") from error
    if crop is not None:
        try:
            photo = crop(photo)
        except ValueError as error:
            raise FastdrawError(f"{path} {error}") from error
    pixels = np.asarray(ImageOps.fit(photo, size[::-1], Image.Resampling.BICUBIC))
    return (np.moveaxis(pixels, 2, 0) if channels > 1 else pixels).tobytes()


def _plain(photo: Image.Image) -> Image.Image:
    """The image in 8 bits a colour, without transparency."""
    if photo.mode.startswith("I"):  # 16 bits of grey, of which Pillow's own conversion keeps the darkest 256
        photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
    if photo.has_transparency_data:
        photo = Image.alpha_composite(Image.new("RGBA", photo.size, "white"), photo.convert("RGBA"))
    return photo.convert("RGB")


def _key(root: Path, files: Sequence[Path], what: tuple[object, ...]) -> bytes:
    """What tells one cache from another of the same name: what was made, and names, sizes and times of the files."""
    digest = hashlib.sha256(repr((VERSION, what)).encode())
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise FastdrawError(f"{path} cannot be read: {error.strerror}") from error
        digest.update(os.fsencode(path.relative_to(root)))
        digest.update(f"\0{status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.digest()


def _find(places: Sequence[Path], shape: tuple[int, ...], key: bytes) -> np.ndarray | None:
    return next((images for place in places if (images := _map(place, shape, key)) is not None), None)


def _map(path: Path, shape: tuple[int, ...], key: bytes) -> np.ndarray | None:
    """Map the bytes of a cache, which its key follows; None where there is none, or one of other files or not whole."""
    try:
        with open(path, "rb") as file:
            file.seek(math.prod(shape))
            if file.read() != key:
                return None
            # "c", as torch warns of an array that cannot be written to; what is written stays in memory.
            return np.memmap(file, np.uint8, "c", shape=shape)
    except (OSError, ValueError):
        return None


def _write(path: Path, shape: tuple[int, ...], key: bytes, images: Iterator[bytes]) -> None:
    with _locked(path.parent):
        if _map(path, shape, key) is not None:  # another process has been faster
            return
        if shutil.disk_usage(path.parent).free < math.prod(shape):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomically(path, chain(images, [key]))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process makes a cache in the folder, then keep others from it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"note: waiting for another process that decodes images into {folder}", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            pass  # some network disks know no locks
        yield
    finally:
        os.close(descriptor)
