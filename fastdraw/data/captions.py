"""MNIST with captions (Mansimov et al. 2016): one or two digits on 60 x 60 black, and a sentence that says where."""

from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastdraw.data.labelled import Batch, LabelledImages, batch_generator, check_stream
from fastdraw.errors import FastdrawError

SIDE, DIGIT_SIDE = 60, 28
WORDS = (*"0123456789", "the", "digit", "is", "on", "at", "left", "right", "bottom", "top", "of", "image", ".")
WORDS_IN_CAPTION = 12
# Where the upper edge of a digit may lie, MIDDLE its left edge too.
TOP, MIDDLE, BOTTOM = range(3), range(16, 19), range(30, 33)
LEFT, RIGHT = range(5), range(28, 33)


class Place(NamedTuple):
    """Where the upper left corner of a digit may lie, and the digit that its sentence never puts there in training."""

    rows: range
    columns: range
    held_out: int


class Template(NamedTuple):
    """A sentence of 12 words, and the places of its digits in the order of the sentence."""

    text: str
    places: tuple[Place, ...]


# The original draws the digits to hold out anew for every run; here they are fixed, so that runs can be compared.
TEMPLATES = (
    Template("the digit {} is on the left of the digit {} .", (Place(MIDDLE, LEFT, 3), Place(MIDDLE, RIGHT, 8))),
    Template("the digit {} is on the right of the digit {} .", (Place(MIDDLE, RIGHT, 5), Place(MIDDLE, LEFT, 0))),
    Template("the digit {} is at the top of the digit {} .", (Place(TOP, MIDDLE, 7), Place(BOTTOM, MIDDLE, 2))),
    Template("the digit {} is at the bottom of the digit {} .", (Place(BOTTOM, MIDDLE, 9), Place(TOP, MIDDLE, 4))),
    Template("the digit {} is at the top left of the image .", (Place(TOP, LEFT, 1),)),
    Template("the digit {} is at the bottom right of the image .", (Place(BOTTOM, RIGHT, 6),)),
    Template("the digit {} is at the top right of the image .", (Place(TOP, RIGHT, 2),)),
    Template("the digit {} is at the bottom left of the image .", (Place(BOTTOM, LEFT, 7),)),
)


class Captions:
    """An endless stream of captioned images, each batch a pure function of (seed, index).

    Each of the eight sentences is as likely as another, and so is each choice of its digits, each image of a digit and
    each place that the sentence allows. Labels are the words of the sentence; all sentences have 12.

    Args:
        digits: images (N, 1, 28, 28) with their digit as their one label, of every digit at least one.
        batch_size: images per batch.
        seed: any integer from 0.
        held_out: draw only sentences with a digit at a place where training never puts it, instead of all the others.
    Raises:
        FastdrawError: images of another size, a digit without an image, batch_size < 1 or seed < 0.
    """

    def __init__(self, digits: LabelledImages, batch_size: int, seed: int, held_out: bool = False) -> None:
        check_stream(batch_size, seed)
        size = tuple(digits.images.shape[1:])
        if size != (1, DIGIT_SIDE, DIGIT_SIDE):
            raise FastdrawError(f"captions are made of images of 1 x {DIGIT_SIDE} x {DIGIT_SIDE}, got {size}")
        labels = digits.labels[:, 0].numpy()
        self._of_digit = [digits.images[labels == digit, 0].numpy() for digit in range(10)]
        for digit, images in enumerate(self._of_digit):
            if not len(images):
                raise FastdrawError(f"captions need images of all ten digits, and there is none of the digit {digit}")
        self.batch_size, self.seed, self.held_out = batch_size, seed, held_out
        self._choices = [_choices(template, held_out) for template in TEMPLATES]

    def batch(self, index: int) -> Batch:
        """Batch number `index`: image (B, 1, 60, 60), labels (B, 12)."""
        rng = batch_generator(self.seed, index)
        image = np.zeros((self.batch_size, 1, SIDE, SIDE), np.uint8)
        captions = [self._draw(rng, canvas) for canvas in image[:, 0]]
        labels = torch.stack([encode(caption) for caption in captions])
        lengths = torch.full((self.batch_size,), labels.shape[1])
        return Batch(torch.from_numpy(image).float().div_(255), labels, lengths)

    def mixed_batch(self, index: int) -> Batch:
        """The same as `batch`, as there is but one length."""
        return self.batch(index)

    def mean_image(self) -> Tensor:
        """The expected image (1, 60, 60), float32: exact but where the frames of two digits overlap."""
        means = np.stack([images.mean(0) for images in self._of_digit]) / 255
        mean = np.zeros((SIDE, SIDE))
        for template, choices in zip(TEMPLATES, self._choices, strict=True):
            for place, digits in zip(template.places, choices.T, strict=True):
                share = 1 / len(TEMPLATES) / len(place.rows) / len(place.columns)
                for row, column in product(place.rows, place.columns):
                    mean[row : row + DIGIT_SIDE, column : column + DIGIT_SIDE] += share * means[digits].mean(0)
        return torch.from_numpy(mean).float()[None]

    def _draw(self, rng: np.random.Generator, canvas: np.ndarray) -> str:
        """Draw digits on a black canvas (60, 60) and return the caption."""
        kind = rng.integers(len(TEMPLATES))
        digits = self._choices[kind][rng.integers(len(self._choices[kind]))]
        for digit, place in zip(digits, TEMPLATES[kind].places, strict=True):
            row, column = (rng.integers(side.start, side.stop) for side in (place.rows, place.columns))
            frame = canvas[row : row + DIGIT_SIDE, column : column + DIGIT_SIDE]
            np.maximum(frame, self._of_digit[digit][rng.integers(len(self._of_digit[digit]))], out=frame)
        return TEMPLATES[kind].text.format(*digits)


def encode(caption: str) -> Tensor:
    """The words of a caption, which stand apart, as labels (L,) int64; a digit's label is the digit.

    Raises:
        FastdrawError: no word, or one that no caption has.
    """
    words = caption.split()
    if not words:
        raise FastdrawError(f'a caption needs words, such as "{TEMPLATES[0].text.format(7, 3)}"')
    for word in words:
        if word not in WORDS:
            raise FastdrawError(f"captions have no word {word!r}: expected words of {' '.join(WORDS)}")
    return torch.tensor([WORDS.index(word) for word in words])


def decode(labels: Tensor) -> str:
    """The caption that labels (L,) stand for.

    Raises:
        FastdrawError: a label stands for no word.
    """
    for label in labels.tolist():
        if not 0 <= label < len(WORDS):
            raise FastdrawError(f"label {label} stands for no word: expected 0 to {len(WORDS) - 1}")
    return " ".join(WORDS[label] for label in labels.tolist())


def _choices(template: Template, held_out: bool) -> np.ndarray:
    """All digits (N, digits of the template) that a template may speak of."""
    choices = product(range(10), repeat=len(template.places))
    return np.array([digits for digits in choices if _is_held_out(template, digits) == held_out])


def _is_held_out(template: Template, digits: tuple[int, ...]) -> bool:
    return any(digit == place.held_out for digit, place in zip(digits, template.places, strict=True))
