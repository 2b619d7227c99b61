"""MNIST in torchvision's layout: ROOT/MNIST/raw/{train,t10k}-{images-idx3,labels-idx1}-ubyte, or those as .gz."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fastdraw.data.labelled import LabelledImages
from fastdraw.errors import FastdrawError

SAMPLE = Path(__file__).parent / "sample"
SPLITS = {"train": "train", "test": "t10k"}
RAW = Path("MNIST") / "raw"


def load_mnist_images(root: Path | None, split: str, download: bool = False) -> LabelledImages:
    """Read one split of MNIST as images (N, 1, 28, 28) whose one label is their digit.

    Args, Raises: as `load_mnist`.
    """
    images, labels = load_mnist(root, split, download)
    digits = torch.from_numpy(labels.astype(np.int64))[:, None]
    # A copy, as numpy's view of the file's bytes cannot be written to.
    return LabelledImages(torch.from_numpy(images.copy())[:, None], digits, torch.ones(len(digits), dtype=torch.int64))


def load_mnist(
    root: Path | None, split: str, download: bool = False
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read one split of MNIST.

    Args:
        root: the folder that holds MNIST/raw/; it may be read-only. None: the sample of 10,000 train and 2,000 test
            digits in this package, which keeps MNIST's own split.
        split: "train" or "test".
        download: fetch the files into root (torchvision checks their sums) where one is missing.
    Returns:
        images (N, H, W) and labels (N,) in 0..9, both uint8.
    Raises:
        FastdrawError: a file is missing, empty, truncated or of another format, or the two do not belong together.
    """
    if root is None:
        if download:
            raise FastdrawError("--download needs a folder to put MNIST into: give it as --root DIR")
        root = SAMPLE
    if split not in SPLITS:
        raise FastdrawError(f'unknown split {split!r}: expected "train" or "test"')
    names = [f"{SPLITS[split]}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")]
    if download and not all(_find(root, name) for name in names):
        _download(root)

    paths = []
    for name in names:
        path = _find(root, name)
        if path is None:
            raise FastdrawError(
                f"{root / RAW / name} is missing, packed (.gz) or not: "
                f"give the folder that holds MNIST/raw/ as --root DIR, or add --download"
            )
        paths.append(path)
    images, labels = (read_idx(path, rank) for path, rank in zip(paths, (3, 1), strict=True))
    if len(images) != len(labels):
        raise FastdrawError(
            f"{paths[0]} holds {len(images)} images but {paths[1].name} {len(labels)} labels: "
            f"they are not of one set; delete both and fetch them again with --download"
        )
    if labels.max(initial=0) > 9:
        raise FastdrawError(f"{paths[1]} holds the label {labels.max()}: expected digits, 0 to 9")
    return images, labels


def read_idx(path: Path, rank: int) -> npt.NDArray[np.uint8]:
    """Read one idx file of unsigned bytes with the given rank, packed by gzip if its name ends in .gz.

    Raises:
        FastdrawError: the file cannot be read, or its header and its length do not say the same.
    """
    advice = "delete it and fetch it again with --download"
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise FastdrawError(f"{path} is not a whole gzip file ({error}): {advice}") from error
    except OSError as error:
        raise FastdrawError(f"{path} cannot be read: {error.strerror}") from error

    header = 4 + 4 * rank
    if len(data) < header:
        raise FastdrawError(f"{path} is empty or truncated ({len(data)} bytes): {advice}")
    # Two zero bytes, the element type (8 is unsigned byte), the rank; then every size as a big-endian int32.
    if data[:4] != bytes((0, 0, 8, rank)):
        raise FastdrawError(f"{path} is not an idx{rank} file of bytes (it starts with {data[:4].hex()}): {advice}")
    shape = struct.unpack(f">{rank}I", data[4:header])
    if len(data) != header + math.prod(shape):
        raise FastdrawError(
            f"{path} holds {len(data) - header} bytes after its header where {math.prod(shape)} were expected: {advice}"
        )
    if math.prod(shape) == 0:
        raise FastdrawError(f"{path} holds no data (its shape is {shape}): {advice}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _find(root: Path, name: str) -> Path | None:
    candidates = (root / RAW / name, root / RAW / f"{name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def _download(root: Path) -> None:
    # torchvision takes a second to import, and nothing but a download needs it.
    from torchvision.datasets import MNIST

    try:
        MNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise FastdrawError(
            f"MNIST could not be fetched into {root / RAW} ({reason}): "
            f"check the network and that the folder can be written, or put the four files there yourself"
        ) from error
