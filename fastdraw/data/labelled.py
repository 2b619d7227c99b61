"""Labelled images, in memory or in a file mapped into it, and endless batches of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from fastdraw.errors import FastdrawError


class Batch(NamedTuple):
    """image (B, C, H, W) float32 in [0, 1]; labels (B, L) int64, from the left, then 0; lengths (B,) int64."""

    image: Tensor
    labels: Tensor
    lengths: Tensor


class Source(Protocol):
    """An endless stream of batches, each a pure function of its index."""

    def batch(self, index: int) -> Batch:
        """Batch number `index`, all of one length."""

    def mixed_batch(self, index: int) -> Batch:
        """Batch number `index`, each image of its own length."""

    def mean_image(self) -> Tensor:
        """The expected image (C, H, W)."""


@dataclass(frozen=True)
class LabelledImages:
    """images (N, C, H, W) uint8, labels (N, L) int64, from the left and 0 beyond lengths (N,) int64, 1 to L.

    Raises:
        FastdrawError: other shapes or dtypes, no image, or a length that is not in 1..L.
    """

    images: Tensor
    labels: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        count = len(self.images)
        fits = self.images.dim() == 4 and self.labels.dim() == 2 and self.lengths.dim() == 1
        if not fits or not count == len(self.labels) == len(self.lengths) or count == 0:
            came = ", ".join(str(tuple(x.shape)) for x in (self.images, self.labels, self.lengths))
            raise FastdrawError(f"images, labels and lengths must be (N, C, H, W), (N, L) and (N,), N > 0; got {came}")
        if (self.images.dtype, self.labels.dtype, self.lengths.dtype) != (torch.uint8, torch.int64, torch.int64):
            came = ", ".join(str(x.dtype).removeprefix("torch.") for x in (self.images, self.labels, self.lengths))
            raise FastdrawError(f"images, labels and lengths must be uint8, int64 and int64, got {came}")
        least, greatest = (int(length) for length in self.lengths.aminmax())
        if least < 1 or greatest > self.labels.shape[1]:
            raise FastdrawError(f"lengths must lie in 1..{self.labels.shape[1]}, got {least}..{greatest}")

    def __len__(self) -> int:
        return len(self.images)


class ImageStream:
    """An endless stream of batches, each a pure function of (seed, index): to resume one needs the index alone.

    Images of a length are drawn uniformly and with replacement.

    Args:
        images: what to draw from.
        weights: of the lengths 1, 2, ..; they need not add up to 1.
        batch_size: images per batch.
        seed: any integer from 0.
        binarise: draw every pixel as 0 or 1, with its grey as the probability of 1, anew in each batch.
    Raises:
        FastdrawError: the weights are no finite numbers >= 0 with one above 0, a weighted length has no image,
            batch_size < 1 or seed < 0.
    """

    def __init__(
        self, images: LabelledImages, weights: Sequence[float], batch_size: int, seed: int, binarise: bool = False
    ) -> None:
        self._probability = length_probabilities(weights)
        check_stream(batch_size, seed)
        self.images, self.batch_size, self.seed, self.binarise = images, batch_size, seed, binarise
        lengths = images.lengths.numpy()
        self._by_length = [np.flatnonzero(lengths == length) for length in range(1, len(weights) + 1)]
        for length, (of_length, share) in enumerate(zip(self._by_length, self._probability, strict=True), 1):
            if share > 0 and not len(of_length):
                raise FastdrawError(f"no image has {length} label{'s' * (length > 1)}: set its weight in lengths to 0")

    def batch(self, index: int) -> Batch:
        """Batch number `index`, all of one length, which is drawn from the mixture."""
        rng = batch_generator(self.seed, index)
        return self._draw(rng, np.full(self.batch_size, rng.choice(len(self._probability), p=self._probability)))

    def mixed_batch(self, index: int) -> Batch:
        """Batch number `index`, each image of its own length; labels are padded to the longest of the batch."""
        rng = batch_generator(self.seed, index)
        return self._draw(rng, rng.choice(len(self._probability), size=self.batch_size, p=self._probability))

    def mean_image(self) -> Tensor:
        """The expected image (C, H, W), float32."""
        means = [
            share * self.images.images[torch.from_numpy(of_length)].double().mean(0)
            for of_length, share in zip(self._by_length, self._probability, strict=True)
            if share > 0
        ]
        return (torch.stack(means).sum(0) / 255).float()

    def _draw(self, rng: np.random.Generator, kinds: np.ndarray) -> Batch:
        chosen = torch.from_numpy(np.asarray([rng.choice(self._by_length[kind]) for kind in kinds]))
        image = self.images.images.index_select(0, chosen).float().div_(255)
        if self.binarise:
            image = draw_pixels(image, rng)
        lengths = self.images.lengths[chosen]
        return Batch(image, self.images.labels[chosen, : int(lengths.max())], lengths)


class EpochStream:
    """An endless stream of batches that takes every image once, in random order, before it takes any again.

    Images must be of one length. Batches go on across the end of an epoch; each is a pure function of (seed, index).

    Args:
        images: what to draw from.
        batch_size: images per batch.
        seed: any integer from 0.
    Raises:
        FastdrawError: the lengths of the images differ, batch_size < 1 or seed < 0.
    """

    def __init__(self, images: LabelledImages, batch_size: int, seed: int) -> None:
        check_stream(batch_size, seed)
        if not bool((images.lengths == images.lengths[0]).all()):
            raise FastdrawError("an epoch takes images of one length: images of several need weights")
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self._order = (-1, torch.empty(0, dtype=torch.int64))

    def batch(self, index: int) -> Batch:
        """Batch number `index`."""
        chosen, place = [], index * self.batch_size
        end = place + self.batch_size
        while place < end:
            epoch, first = divmod(place, len(self.images))
            chosen.append(self._permutation(epoch)[first : first + end - place])
            place += len(chosen[-1])
        rows = torch.cat(chosen)
        # index_select copies whole images; indexing with [] is up to seventy times slower here.
        image = self.images.images.index_select(0, rows).float().div_(255)
        return Batch(image, self.images.labels[rows, : int(self.images.lengths[0])], self.images.lengths[rows])

    mixed_batch = batch

    def mean_image(self) -> Tensor:
        """The mean image (C, H, W), float32."""
        total = torch.zeros(self.images.images.shape[1:], dtype=torch.float64)
        for part in self.images.images.split(1024):
            total += part.sum(0, dtype=torch.float64)
        return (total / (255 * len(self.images))).float()

    def _permutation(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            order = batch_generator(self.seed, epoch).permutation(len(self.images))
            self._order = (epoch, torch.from_numpy(order))
        return self._order[1]


def draw_pixels(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Every pixel as 0 or 1, with its grey in [0, 1] as the probability of 1."""
    return (torch.from_numpy(rng.random(tuple(image.shape), np.float32)) < image).float()


def length_probabilities(weights: Sequence[float]) -> np.ndarray:
    """Weights of the lengths 1, 2, .. as probabilities (float64).

    Raises:
        FastdrawError: they are no finite numbers >= 0 with one above 0.
    """
    if not weights or not all(weight >= 0 for weight in weights) or not 0 < sum(weights) < math.inf:
        raise FastdrawError(f"lengths must be weights >= 0, their sum finite and not 0; got {list(weights)}")
    return np.asarray(weights, np.float64) / math.fsum(weights)


def check_stream(batch_size: int, seed: int) -> None:
    """Check what every stream of batches is given.

    Raises:
        FastdrawError: batch_size < 1 or seed < 0.
    """
    if batch_size < 1:
        raise FastdrawError(f"batch size must be at least 1, got {batch_size}")
    if seed < 0:
        raise FastdrawError(f"seed must be at least 0, got {seed}")


def batch_generator(seed: int, index: int) -> np.random.Generator:
    """The random numbers of one batch."""
    # numpy's seed sequence hashes both numbers into 128 bits; torch's CPU generator keeps 32 bits of a seed.
    return np.random.default_rng([seed, index])
