"""CelebA, aligned and cropped: faces of 178 x 218 pixels, of which paper 003 takes the central 128 x 128."""

import re
from pathlib import Path

from PIL import Image

from fastdraw.data.decoded import load_decoded
from fastdraw.data.labelled import LabelledImages
from fastdraw.errors import FastdrawError

# The first and the last number of each, as in CelebA's list_eval_partition.txt.
SPLITS = {"train": (1, 162_770), "valid": (162_771, 182_637), "test": (182_638, 202_599)}
FOLDER = "img_align_celeba"
WIDTH, HEIGHT = 178, 218
SIDE = 128


def load_faces(
    root: Path, split: str, size: tuple[int, int] = (SIDE, SIDE), channels: int = 3, download: bool = False
) -> LabelledImages:
    """Read one split: the central 128 x 128 pixels of every face, brought to another size where one is asked for.

    The files may be a part of the data set. What is kept for the next time: see `load_decoded`.

    Args:
        root: the folder that holds img_align_celeba/, or, as torchvision has it, celeba/img_align_celeba/; it may be
            read-only.
        split: "train", "valid" or "test", told by the numbers of the files.
        size: height and width of the images.
        channels: 1 (grey) or 3 (colour).
        download: fetch the data set into root, by torchvision, where it is missing.
    Returns:
        images (N, C, H, W) in the order of their numbers, all with the one label 0.
    Raises:
        FastdrawError: there are no such images, one is broken or of another size, or the data set cannot be fetched; a
            size below 1, or other channels.
    """
    if split not in SPLITS:
        raise FastdrawError(f"unknown split {split!r}: expected one of {', '.join(SPLITS)}")
    places = (root / FOLDER, root / "celeba" / FOLDER)
    if download and not any(place.is_dir() for place in places):
        _download(root)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        raise FastdrawError(
            f"{places[0]} is missing, and so is {places[1]}: "
            f"give the folder that holds CelebA's {FOLDER}/ as --root DIR, or add --download"
        )
    first, last = SPLITS[split]
    numbers = sorted(int(path.stem) for path in folder.iterdir() if re.fullmatch(r"[0-9]{6}\.jpg", path.name))
    files = [folder / f"{number:06}.jpg" for number in numbers if first <= number <= last]
    if not files:
        raise FastdrawError(
            f"{folder} holds no image of CelebA's {split} split, {first:06}.jpg to {last:06}.jpg: "
            f"unpack img_align_celeba.zip again"
        )
    return load_decoded(root, f"celeba-{split}", files, size, channels, _centre)


def _centre(photo: Image.Image) -> Image.Image:
    if photo.size != (WIDTH, HEIGHT):
        raise ValueError(
            f"is {photo.width} x {photo.height} pixels where CelebA's aligned images are {WIDTH} x {HEIGHT}: "
            f'read images of another size as the source "folder"'
        )
    left, top = (WIDTH - SIDE) // 2, (HEIGHT - SIDE) // 2
    return photo.crop((left, top, left + SIDE, top + SIDE))


def _download(root: Path) -> None:
    # torchvision takes a second to import, and nothing but a download needs it.
    from torchvision.datasets import CelebA

    try:
        CelebA(str(root), download=True)
    except Exception as error:  # the package that fetches from Google Drive has errors of its own
        reason = " ".join(str(error).split())
        raise FastdrawError(
            f"CelebA could not be fetched into {root / 'celeba'} ({reason}): "
            f"check the network and the room on the disk, or unpack img_align_celeba.zip there yourself"
        ) from error
