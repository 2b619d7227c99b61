"""Reading generated digits: a reader trained on real digits alone, and how often it reads what was asked for."""

from typing import NamedTuple

import torch
from scipy.stats import binomtest
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from fastdraw.data import DigitCells
from fastdraw.data.cells import CELL_WIDTH
from fastdraw.models.reader import DigitReader

BATCH_SIZE = 100
PEAK_LEARNING_RATE = 1e-2
MAX_SHIFT = 2


class Accuracy(NamedTuple):
    """`correct` of `total` were right: their share `value`, and its Wilson 95 % interval from `low` to `high`."""

    correct: int
    total: int
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1%} ({self.low:.1%} to {self.high:.1%}, {self.correct} of {self.total})"


def train_reader(digits: DigitCells, seed: int, steps: int = 500) -> DigitReader:
    """Train a reader on real digits, each moved by up to two pixels, since generated digits may stand a little off.

    Args:
        digits: the train split; the test split is for `reader_accuracy`.
        seed: fixes weights, batches and shifts; torch's global random state is left alone.
        steps: batches of 100.
    Returns:
        The reader, on the CPU, in evaluation mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = DigitReader()
        optimiser = torch.optim.AdamW(reader.parameters(), PEAK_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_LEARNING_RATE, total_steps=steps)
        for _ in range(steps):
            picks = torch.randint(len(digits), (BATCH_SIZE,))
            logits = reader(_shift(digits.cells[picks, None] / 255))
            optimiser.zero_grad()
            cross_entropy(logits, digits.labels[picks]).backward()
            optimiser.step()
            schedule.step()
    return reader.eval()


@torch.inference_mode()
def read_digits(reader: DigitReader, images: Tensor, length: int) -> Tensor:
    """Read the rightmost `length` slots of images (B, 1, 32, 64) in [0, 1], on the reader's device.

    Returns:
        digits (B, length) int64, left to right.
    """
    slots = images[..., images.shape[-1] - length * CELL_WIDTH :].unflatten(
        -1, (length, CELL_WIDTH)
    )  # (B, 1, 32, L, 16)
    cells = slots.permute(0, 3, 1, 2, 4).flatten(0, 1)
    # In parts, as the activations of all cells at once would take gigabytes.
    digits = [reader(part).argmax(1) for part in cells.split(1000)]
    return torch.cat(digits).view(len(images), length)


def accuracy(read: Tensor, asked: Tensor) -> Accuracy:
    """How many rows of read (B, L) equal those of asked (B, L) in every digit; B >= 1."""
    return proportion(int((read == asked).all(1).sum()), len(asked))


def proportion(correct: int, total: int) -> Accuracy:
    """The share of `correct` out of `total` >= 1, with Wilson's interval."""
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return Accuracy(correct, total, correct / total, float(interval.low), float(interval.high))


def reader_accuracy(reader: DigitReader, digits: DigitCells) -> Accuracy:
    """How many of the held-out real digits the reader reads right."""
    return accuracy(read_digits(reader, digits.cells[:, None] / 255, 1), digits.labels[:, None])


def _shift(cells: Tensor) -> Tensor:
    """Move each of cells (B, 1, H, W) by its own -2..2 pixels down and right, with black coming in."""
    batch, _, height, width = cells.shape
    padded = pad(cells[:, 0], [MAX_SHIFT] * 4)
    down, right = torch.randint(2 * MAX_SHIFT + 1, (2, batch, 1))
    rows = (down + torch.arange(height))[:, :, None]
    columns = (right + torch.arange(width))[:, None, :]
    return padded[torch.arange(batch)[:, None, None], rows, columns][:, None]
