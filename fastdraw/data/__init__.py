"""Digits for the papers' models: MNIST files, digit cells, multi-digit images. Knows nothing of the models."""

from fastdraw.data.cells import DigitCells, load_cells
from fastdraw.data.multidigits import Batch, MultiDigits

__all__ = ["Batch", "DigitCells", "MultiDigits", "load_cells"]
