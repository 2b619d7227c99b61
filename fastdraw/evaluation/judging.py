"""The protocol of Table II (paper 000, section IV-A): a classifier reads what a model draws and what it redraws."""

from typing import cast

import torch
from torch import Tensor

from fastdraw.data import Batch
from fastdraw.evaluation.classifier import sequence_accuracy
from fastdraw.evaluation.table2 import Counts
from fastdraw.models import Model
from fastdraw.models.classifier import DigitClassifier

CHUNK = 100  # images that go through the model at once


def judge_test_images(classifier: DigitClassifier, batch: Batch) -> Counts:
    """How many real images are read right: what the classifier is worth itself."""
    return _count(classifier, *batch)


def judge_prior(model: Model, classifier: DigitClassifier, batch: Batch, images: int, seed: int) -> Counts:
    """How many of `images` images drawn from the prior are read as asked: the labels of a batch, over and over."""
    rows = torch.arange(images) % len(batch.labels)
    labels, lengths = batch.labels[rows], batch.lengths[rows]
    drawn = draw_images(model, labels, lengths, torch.Generator().manual_seed(seed))
    return _count(classifier, drawn, labels, lengths)


def judge_reconstructions(model: Model, classifier: DigitClassifier, batch: Batch, seed: int) -> Counts:
    """How many images of a batch are read right after the model encoded and redrew them."""
    return _count(classifier, redraw_images(model, batch, seed), batch.labels, batch.lengths)


@torch.no_grad()
def draw_images(model: Model, labels: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
    """Draw labels (B, L), of which lengths (B,) count, from the prior: images (B, C, H, W) in [0, 1], on the CPU."""
    images = []
    for part, counts in zip(labels.split(CHUNK), lengths.split(CHUNK), strict=True):
        noise = model.noise(len(part), part.shape[1], generator)
        canvas = model.sample(part.to(noise.device), counts.to(noise.device), noise)
        images.append(model.expected(cast(Tensor, canvas)).cpu())
    return torch.cat(images)


@torch.no_grad()
def redraw_images(model: Model, batch: Batch, seed: int) -> Tensor:
    """Encode and redraw the images of a batch: images (B, C, H, W) in [0, 1], on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for part in zip(*(tensor.split(CHUNK) for tensor in batch), strict=True):
        noise = model.noise(len(part[1]), part[1].shape[1], generator)
        images.append(model.expected(model(*(tensor.to(noise.device) for tensor in part), noise).canvas).cpu())
    return torch.cat(images)


def _count(classifier: DigitClassifier, images: Tensor, labels: Tensor, lengths: Tensor) -> Counts:
    predicted, given, digits = sequence_accuracy(classifier, images, labels, lengths)
    return Counts(
        images=predicted.total,
        predicted_length=predicted.correct,
        given_length=given.correct,
        digits=digits.correct,
    )
