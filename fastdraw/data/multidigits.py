"""Multi-digit images: L digit cells in a row, aligned right on 32 x 64 black (four slots), as many as one asks for."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastdraw.data.cells import CELL_HEIGHT, CELL_WIDTH, DigitCells
from fastdraw.data.labelled import Batch, batch_generator, check_stream, length_probabilities
from fastdraw.errors import FastdrawError

SLOTS = 4


class MultiDigits:
    """An endless stream of batches, each a pure function of (seed, index): to resume one needs the index alone.

    Digits are drawn uniformly over the images of `digits`, each slot on its own.

    Args:
        digits: the cells to draw from.
        lengths: weights of the lengths 1, 2, 3, 4; they need not add up to 1.
        batch_size: images per batch.
        seed: any integer from 0.
    Raises:
        FastdrawError: the weights are not four finite numbers >= 0 with one above 0, batch_size < 1 or seed < 0.
    """

    def __init__(self, digits: DigitCells, lengths: Sequence[float], batch_size: int, seed: int) -> None:
        if len(lengths) != SLOTS:
            raise FastdrawError(f"lengths must be {SLOTS} weights (of 1 to {SLOTS} digits), got {list(lengths)}")
        self._probability = length_probabilities(lengths)
        check_stream(batch_size, seed)
        self.digits = digits
        self.batch_size = batch_size
        self.seed = seed

    def batch(self, index: int) -> Batch:
        """Batch number `index`, all of one length, which is drawn from the mixture."""
        rng = batch_generator(self.seed, index)
        return self._draw(rng, np.full(self.batch_size, 1 + rng.choice(SLOTS, p=self._probability)))

    def mixed_batch(self, index: int) -> Batch:
        """Batch number `index`, each image of its own length; digits are padded to the longest of the batch."""
        rng = batch_generator(self.seed, index)
        return self._draw(rng, 1 + rng.choice(SLOTS, size=self.batch_size, p=self._probability))

    def mean_image(self) -> Tensor:
        """The expected image (1, 32, 64), float32: exact, as slot s from the right is inked when L > s."""
        inked = torch.from_numpy(self._probability[::-1].cumsum())
        cell = self.digits.cells.double().mean(0) / 255
        return (inked[:, None, None] * cell).permute(1, 0, 2).reshape(1, CELL_HEIGHT, SLOTS * CELL_WIDTH).float()

    def _draw(self, rng: np.random.Generator, lengths: np.ndarray) -> Batch:
        picks = torch.from_numpy(rng.integers(len(self.digits), size=(self.batch_size, SLOTS)))
        count = torch.from_numpy(lengths)
        first = SLOTS - count[:, None]
        inked = torch.arange(SLOTS) >= first

        # index_select copies whole cells; indexing with [] is fifteen times slower here.
        cells = self.digits.cells.index_select(0, picks.flatten()).view(self.batch_size, SLOTS, CELL_HEIGHT, CELL_WIDTH)
        rows = (cells * inked[:, :, None, None]).permute(0, 2, 1, 3)
        image = rows.to(torch.float32, memory_format=torch.contiguous_format).div_(255)

        place = torch.arange(int(count.max())).expand(self.batch_size, -1)
        slot = (first + place).clamp(max=SLOTS - 1)
        labels = self.digits.labels[picks].gather(1, slot).masked_fill(place >= count[:, None], 0)
        return Batch(image.view(self.batch_size, 1, CELL_HEIGHT, SLOTS * CELL_WIDTH), labels, count)
