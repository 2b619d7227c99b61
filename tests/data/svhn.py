"""A small SVHN of format 1: digitStruct.mat as MATLAB lays it out, and photos in which a digit is a colour."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

FIELDS = ("label", "left", "top", "width", "height")
GROUND = 100


def write_digit_struct(path, entries):
    """Write entries, each a name and a list of (label, left, top, width, height) with the labels as in the file."""
    with h5py.File(path, "w") as file:
        refs = file.create_group("#refs#")

        def put(value, dtype):
            return refs.create_dataset(f"r{len(refs)}", data=np.array(value, dtype)).ref

        names, boxes = [], []
        for name, rows in entries:
            names.append([put([[ord(character)] for character in name], np.uint16)])
            group = refs.create_group(f"g{len(refs)}")
            for field, values in zip(FIELDS, np.array(rows, float).reshape(-1, 5).T, strict=True):
                if len(values) == 1:
                    group.create_dataset(field, data=values.reshape(1, 1))
                else:
                    pointers = [[put([[value]], float)] for value in values]
                    group.create_dataset(field, data=np.array(pointers, h5py.ref_dtype), dtype=h5py.ref_dtype)
            boxes.append([group.ref])
        struct = file.create_group("digitStruct")
        for key, pointers in (("name", names), ("bbox", boxes)):
            shape = (len(pointers), 1)
            struct.create_dataset(key, shape, h5py.ref_dtype, data=np.array(pointers, h5py.ref_dtype).reshape(shape))


def write_photo(path, rows, size=(80, 60), ground=GROUND):
    """Write a photo (width, height) on which each box of rows is filled with (20 * digit, same, 255 - same)."""
    photo = np.full((size[1], size[0], 3), ground, np.uint8)
    for label, left, top, width, height in rows:
        grey = 20 * (label % 10)
        photo[max(0, top) : top + height, max(0, left) : left + width] = (grey, grey, 255 - grey)
    Image.fromarray(photo).save(path)


def house_numbers(count: int, seed: int = 0, lengths: Sequence[int] = (1, 2, 3, 4)) -> list[list[tuple[int, ...]]]:
    """`count` random numbers of each length, side by side on a photo, for `write_svhn`."""
    rng = np.random.default_rng(seed)
    return [
        [(int(rng.integers(1, 11)), 4 + 17 * place, 10, 14, 40) for place in range(length)]
        for length in lengths
        for _ in range(count)
    ]


def write_svhn(root: Path, split: str, numbers) -> Path:
    """Write root/split with the photos 1.png, 2.png, .. of numbers, which are lists of rows. Returns the folder."""
    folder = root / split
    folder.mkdir(parents=True)
    entries = [(f"{index}.png", rows) for index, rows in enumerate(numbers, 1)]
    write_digit_struct(folder / "digitStruct.mat", entries)
    for name, rows in entries:
        write_photo(folder / name, rows)
    return folder
