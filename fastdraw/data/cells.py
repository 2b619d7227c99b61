"""Digit cells: handwritten digits, each cropped to its ink and fitted into one 32 x 16 slot."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from fastdraw.data.mnist import SAMPLE, load_mnist
from fastdraw.errors import FastdrawError

CELL_HEIGHT, CELL_WIDTH = 32, 16
INK_HEIGHT, INK_WIDTH = 24, 15


@dataclass(frozen=True)
class DigitCells:
    """cells (N, 32, 16) uint8 with 255 as full ink, and their labels (N,) int64 in 0..9."""

    cells: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def load_cells(root: Path | None, split: str, download: bool = False) -> DigitCells:
    """Read MNIST digits of one split as cells.

    Args:
        root, split, download: as in `load_mnist`.
    Raises:
        FastdrawError: the files are missing or broken, or hold something else than digits.
    """
    images, labels = load_mnist(root, split, download)
    cells = np.zeros((len(images), CELL_HEIGHT, CELL_WIDTH), np.uint8)
    for index, image in enumerate(images):
        try:
            cells[index] = to_cell(image)
        except ValueError as error:
            raise FastdrawError(f"{split} image {index} under {root or SAMPLE} {error}: is this MNIST?") from error
    return DigitCells(torch.from_numpy(cells), torch.from_numpy(labels.astype(np.int64)))


def to_cell(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Crop image (H, W) to its ink, scale it by min(24 / h, 15 / w) and put it in the centre of a black cell (32, 16).

    Raises:
        ValueError: image has no ink.
    """
    picture = Image.fromarray(image)
    box = picture.getbbox()
    if box is None:
        raise ValueError("has no ink")
    ink_width, ink_height = box[2] - box[0], box[3] - box[1]
    scale = min(INK_HEIGHT / ink_height, INK_WIDTH / ink_width)
    width, height = max(1, round(ink_width * scale)), max(1, round(ink_height * scale))
    left, top = (CELL_WIDTH - width) // 2, (CELL_HEIGHT - height) // 2

    cell = np.zeros((CELL_HEIGHT, CELL_WIDTH), np.uint8)
    ink = picture.resize((width, height), Image.Resampling.BICUBIC, box=box)
    cell[top : top + height, left : left + width] = np.asarray(ink)
    return cell
