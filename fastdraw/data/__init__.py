"""Images and labels for the papers' models, as endless streams of batches. Knows nothing of the models."""

from fastdraw.data.captions import Captions
from fastdraw.data.celeba import load_faces
from fastdraw.data.cells import DigitCells, load_cells
from fastdraw.data.folders import load_image_folder
from fastdraw.data.labelled import Batch, EpochStream, ImageStream, LabelledImages, Source
from fastdraw.data.mnist import load_mnist_images
from fastdraw.data.multidigits import MultiDigits

__all__ = [
    "Batch",
    "Captions",
    "DigitCells",
    "EpochStream",
    "ImageStream",
    "LabelledImages",
    "MultiDigits",
    "Source",
    "load_cells",
    "load_faces",
    "load_image_folder",
    "load_mnist_images",
]
