"""Imported once, by the process that `warm` forks from: reads the digits for all the others."""

import functools

import torch._dynamo  # noqa: F401 (the first optimiser of a process imports it, which takes seconds)
from tqdm import tqdm

from fastdraw.data import load_cells, load_mnist_images
from fastdraw.training import sources

tqdm.get_lock()  # of this process, which outlives those that are killed

sources.load_cells = functools.cache(load_cells)
sources.load_cells(None, "train", False)
sources.load_cells(None, "test", False)
sources.load_mnist_images = functools.cache(load_mnist_images)
sources.load_mnist_images(None, "train", False)
sources.load_mnist_images(None, "test", False)
