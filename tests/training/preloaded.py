"""Imported once, by the process that `warm` forks from: reads the digits for all the others."""

import functools

import torch._dynamo  # noqa: F401 (the first optimiser of a process imports it, which takes seconds)
from tqdm import tqdm

from fastdraw.data import load_cells
from fastdraw.training import sources

tqdm.get_lock()  # of this process, which outlives those that are killed

cached_cells = functools.cache(load_cells)
sources.load_cells = cached_cells
cached_cells(None, "train", False)
cached_cells(None, "test")
