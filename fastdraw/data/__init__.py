"""Digits for the papers' models: MNIST files, digit cells, multi-digit images. Knows nothing of the models."""

from fastdraw.data.cells import DigitCells, load_cells
from fastdraw.data.labelled import Batch, ImageStream, LabelledImages
from fastdraw.data.multidigits import MultiDigits

__all__ = ["Batch", "DigitCells", "ImageStream", "LabelledImages", "MultiDigits", "load_cells"]
