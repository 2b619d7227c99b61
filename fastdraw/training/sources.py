"""What a run is trained and tested on: streams of batches, by the settings' name of the data."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from fastdraw.data import (
    Batch,
    Captions,
    EpochStream,
    ImageStream,
    LabelledImages,
    MultiDigits,
    Source,
    load_cells,
    load_faces,
    load_image_folder,
    load_mnist_images,
)
from fastdraw.data.labelled import batch_generator, draw_pixels
from fastdraw.data.svhn import load_svhn
from fastdraw.errors import FastdrawError
from fastdraw.training.settings import UNLABELLED, DataSettings, Settings

TEST_SEED = 0


class Curriculum:
    """A source whose mixture of lengths changes with the batch: stage s is `stages[s]`, from batch `starts[s]` on."""

    def __init__(self, stages: Sequence[Source], starts: Sequence[int]) -> None:
        self.stages, self.starts = stages, starts

    def batch(self, index: int) -> Batch:
        return self._stage(index).batch(index)

    def mixed_batch(self, index: int) -> Batch:
        return self._stage(index).mixed_batch(index)

    def mean_image(self) -> Tensor:
        # What a later stage adds to the canvas is drawn, not there from the start.
        return self.stages[0].mean_image()

    def _stage(self, index: int) -> Source:
        return self.stages[bisect_right(self.starts, index) - 1]


def training_source(settings: Settings) -> Source:
    """The batches of a run, one for each step.

    Raises:
        FastdrawError: the data is missing or broken.
    """
    stream = _open(settings, "train")
    stages = settings.curriculum.stages(settings.data.lengths, settings.steps)
    sources = [stream(weights, settings.batch_size, settings.seed) for weights, _ in stages]
    return sources[0] if len(sources) == 1 else Curriculum(sources, [start for _, start in stages])


def held_out_source(settings: Settings, batch_size: int) -> Source:
    """Images of the test split with the run's mixture of lengths; the same for every seed of a run.

    Raises:
        FastdrawError: the data is missing or broken.
    """
    return _open(settings, "test")(settings.data.lengths, batch_size, TEST_SEED)


def held_out_images(settings: Settings, length: int, count: int) -> Batch:
    """Images of the test split with `length` labels, none twice: `count` of them, or all where there are fewer.

    Raises:
        FastdrawError: the data is missing or broken, or no image is of that length.
    """
    data = settings.data
    if data.source in ("mnist", "captions"):  # which make as many as one asks for
        return _open(settings, "test")(data.alone(length).lengths, count, TEST_SEED).batch(0)
    if data.source in UNLABELLED:  # at random, as a folder may be sorted by what its images show
        pictures = _pictures(settings, "test")
        return EpochStream(pictures, min(count, len(pictures)), TEST_SEED).batch(0)
    if data.source == "digits":
        images = _digits(data, "test")
        return Batch(images.images[:count] / 255, images.labels[:count], images.lengths[:count])
    if data.source == "binarised":
        images = load_mnist_images(data.root, "test", data.download)
        image = draw_pixels(images.images[:count] / 255, batch_generator(TEST_SEED, 0))
        return Batch(image, images.labels[:count], images.lengths[:count])
    numbers = _house_numbers(data, "test")
    chosen = (numbers.lengths == length).nonzero().flatten()[:count]
    if not len(chosen):
        raise FastdrawError(f"no test image under {data.root} has {length} digits")
    return Batch(numbers.images[chosen] / 255, numbers.labels[chosen, :length], numbers.lengths[chosen])


def held_out_at(settings: Settings, length: int, numbers: Sequence[int] | int) -> Batch:
    """The images with these numbers, from 0, among those of the test split that have `length` labels.

    Of a single int they are the first so many, or all where there are fewer.

    Raises:
        FastdrawError: as `held_out_images`, or there are no images with these numbers.
    """
    data = settings.data
    if data.source in ("mnist", "captions"):
        source = _open(settings, "test")(data.alone(length).lengths, 1, TEST_SEED)
        wanted = range(numbers) if isinstance(numbers, int) else numbers
        return Batch(*(torch.cat(parts) for parts in zip(*map(source.batch, wanted), strict=True)))
    if isinstance(numbers, int):
        return held_out_images(settings, length, numbers)
    images = held_out_images(settings, length, max(numbers) + 1)
    if max(numbers) >= len(images.image):
        raise FastdrawError(f"no test image {max(numbers)}: there are {len(images.image)} of this kind, from 0")
    return Batch(*(tensor[list(numbers)] for tensor in images))


def _open(settings: Settings, split: str) -> Callable[[Sequence[float], int, int], Source]:
    """Read a split once; the result makes streams of it from weights of lengths, a batch size and a seed."""
    data = settings.data
    if data.source == "svhn":
        return partial(ImageStream, _house_numbers(data, split))
    if data.source in UNLABELLED:
        pictures = _pictures(settings, split)
        return lambda weights, batch_size, seed: EpochStream(pictures, batch_size, seed)
    if data.source == "binarised":
        images = load_mnist_images(data.root, split, data.download)
        return lambda weights, batch_size, seed: ImageStream(images, (1,), batch_size, seed, binarise=True)
    if data.source == "digits":
        digits = _digits(data, split)
        return lambda weights, batch_size, seed: EpochStream(digits, batch_size, seed)
    if data.source == "captions":
        digits = load_mnist_images(data.root, split, data.download)
        return lambda weights, batch_size, seed: Captions(digits, batch_size, seed)
    return partial(MultiDigits, load_cells(data.root, split, data.download))


def _digits(data: DataSettings, split: str) -> LabelledImages:
    digits = load_mnist_images(data.root, split, data.download)
    if not data.leave_out:
        return digits
    kept = torch.isin(digits.labels[:, 0], torch.tensor(data.leave_out), invert=True)
    if not kept.any():
        raise FastdrawError(f"no {split} digit is left: data.leave_out {data.leave_out} leaves out all there are")
    return LabelledImages(digits.images[kept], digits.labels[kept], digits.lengths[kept])


def _house_numbers(data: DataSettings, split: str) -> LabelledImages:
    if data.root is None:
        raise FastdrawError("SVHN does not come with fastdraw: give the folder of its train/ and test/ as --root DIR")
    return load_svhn(data.root, split, align=data.align, channels=data.channels, download=data.download)


def _pictures(settings: Settings, split: str) -> LabelledImages:
    """Images of any size, brought to that of the model."""
    data, size = settings.data, (settings.model.height, settings.model.width)
    if data.root is None:
        what = "img_align_celeba/" if data.source == "celeba" else "the images"
        raise FastdrawError(f"data.source {data.source} needs a folder: give the one that holds {what} as --root DIR")
    if data.source == "celeba":
        return load_faces(data.root, split, size, data.channels, data.download)
    return load_image_folder(data.root, split, size, data.channels)
