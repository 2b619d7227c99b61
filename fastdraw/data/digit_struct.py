"""digitStruct.mat of SVHN, format 1: which digits stand where in each image. HDF5 as MATLAB 7.3 writes it.

/digitStruct/name (N, 1)    references to the characters of a file name, uint16
/digitStruct/bbox (N, 1)    references to groups with label, left, top, width and height, (L, 1) each:
                            L references to single numbers, or, where L = 1, the number itself
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt
from h5py import h5d, h5r, h5s, h5t
from tqdm import tqdm

from fastdraw.errors import FastdrawError

FIELDS = ("label", "left", "top", "width", "height")
LONGEST = 255  # characters of a name, and digits of a number: no file goes near it, and a broken one would far beyond
ADVICE = "fetch it again, or unpack the archive again"


class Number(NamedTuple):
    """What one image shows, in the order of the file.

    name: of the image file, without a folder.
    digits (L,): int64, 0 to 9.
    boxes (L, 4): float64, left, top, width and height in pixels, counted from 0; they may reach out of the image.
    """

    name: str
    digits: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]


def read_digit_struct(path: Path) -> list[Number]:
    """Read all entries, under a progress bar.

    Raises:
        FastdrawError: the file is missing, truncated, damaged or of another layout, is empty, or an entry has fields of
            unequal lengths, a label outside 1..10, or a name that is not the plain name of a PNG file.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read(file, path)
    except FileNotFoundError as error:
        raise FastdrawError(f"{path} is missing: {ADVICE}") from error
    # What HDF5 meets in a damaged file comes as almost any of Python's exceptions.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as e:
        reason = " ".join(str(e).split())
        raise FastdrawError(f"{path} is not a whole digitStruct.mat ({reason}): {ADVICE}") from e


def _read(file: h5py.File, path: Path) -> list[Number]:
    names, boxes = (_references(file, f"digitStruct/{key}", path) for key in ("name", "bbox"))
    if names.shape != boxes.shape:
        raise FastdrawError(f"{path} holds {len(names)} names but {len(boxes)} entries of boxes: {ADVICE}")
    value = _value_reader(file)
    numbers = []
    # h5py's own objects cost five times as much per number; 33,402 entries hold 700,000 of them.
    pairs = zip(names[:, 0], boxes[:, 0], strict=True)
    for index, (name, box) in enumerate(tqdm(pairs, path.parent.name, len(names), unit="entry", disable=None), 1):
        text = _text(h5r.dereference(name, file.id), f"{path}: entry {index}")
        entry = f"{path}: {text}"
        group = h5r.dereference(box, file.id)
        fields = np.array(_equal([_numbers(group, field, value, entry) for field in FIELDS], entry))
        if not np.isfinite(fields).all():
            raise FastdrawError(f"{entry} has a label or a box that is not finite: {ADVICE}")
        numbers.append(Number(text, _digits(fields[0], entry), fields[1:].T.copy()))
    return numbers


def _references(file: h5py.File, key: str, path: Path) -> npt.NDArray[np.object_]:
    data = file.get(key)
    if not isinstance(data, h5py.Dataset) or h5py.check_ref_dtype(data.dtype) is not h5py.Reference:
        raise FastdrawError(f"{path} has no references at /{key}: is it the digitStruct.mat of SVHN format 1?")
    if data.ndim != 2 or data.shape[1] != 1:
        raise FastdrawError(f"{path}: /{key} must have the shape (N, 1), got {data.shape}: {ADVICE}")
    # Every entry takes many bytes: a greater count is a damaged one, and would exhaust the memory.
    if not 0 < len(data) <= path.stat().st_size:
        raise FastdrawError(f"{path} names {len(data)} images in {path.stat().st_size} bytes: {ADVICE}")
    return data[()]


def _text(characters: h5d.DatasetID, entry: str) -> str:
    shape = characters.shape
    if len(shape) != 2 or not shape[0] * shape[1] <= LONGEST:
        raise FastdrawError(f"{entry} has a name of shape {shape}: {ADVICE}")
    codes = np.empty(shape, np.uint16)
    characters.read(h5s.ALL, h5s.ALL, codes)
    name = "".join(map(chr, codes.flat))
    # The name becomes part of a path.
    if not re.fullmatch(r"[\w-][\w.-]*\.png", name, re.ASCII):
        raise FastdrawError(f"{entry} names the image {name!r}: expected a plain name such as 1.png; {ADVICE}")
    return name


def _numbers(group: Any, field: str, value: Callable[[h5d.DatasetID], float], entry: str) -> list[float]:
    data = h5d.open(group, field.encode())
    shape = data.shape
    if len(shape) != 2 or shape[1] != 1 or not 0 < shape[0] <= LONGEST:
        raise FastdrawError(f"{entry} has a {field} of shape {shape}: expected (number of digits, 1); {ADVICE}")
    if data.get_type().get_class() != h5t.REFERENCE:
        return [value(data)]
    references = np.empty(shape, h5py.ref_dtype)
    data.read(h5s.ALL, h5s.ALL, references)
    return [value(h5r.dereference(reference, group)) for reference in references[:, 0]]


def _value_reader(file: h5py.File) -> Callable[[h5d.DatasetID], float]:
    """A function that reads the one number of a dataset, and raises where it holds more or something else."""
    one, space = np.empty((1, 1)), h5s.create_simple((1, 1))

    def read(data: h5d.DatasetID) -> float:
        # Spaces and types that are made once save two thirds of the time.
        data.read(space, h5s.ALL, one, h5t.NATIVE_DOUBLE)
        return float(one[0, 0])

    return read


def _equal(fields: list[list[float]], entry: str) -> list[list[float]]:
    if len({len(field) for field in fields}) > 1:
        counts = ", ".join(f"{len(values)} of {name}" for name, values in zip(FIELDS, fields, strict=True))
        raise FastdrawError(f"{entry} has fields of unequal lengths ({counts}): {ADVICE}")
    return fields


def _digits(labels: npt.NDArray[np.float64], entry: str) -> npt.NDArray[np.int64]:
    for label in labels:
        if label not in range(1, 11):
            raise FastdrawError(f"{entry} has the label {label:g}: expected 1 to 10, where 10 is the digit 0; {ADVICE}")
    return labels.astype(np.int64) % 10
