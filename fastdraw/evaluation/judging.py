"""The protocol of Table II (paper 000, section IV-A): a classifier reads what a model draws and what it redraws."""

from typing import cast

import torch
from torch import Tensor

from fastdraw.data import Batch
from fastdraw.evaluation.classifier import SequenceAccuracy, sequence_accuracy
from fastdraw.evaluation.table2 import Counts
from fastdraw.models import Draw
from fastdraw.models.classifier import DigitClassifier

CHUNK = 100  # images that go through the model at once


def judge_prior(model: Draw, classifier: DigitClassifier, batch: Batch, seed: int) -> Counts:
    """How many images drawn from the prior, asked for with the labels of a batch, are read as asked."""
    return count(sequence_accuracy(classifier, draw_images(model, batch, seed), batch.labels, batch.lengths))


def judge_reconstructions(model: Draw, classifier: DigitClassifier, batch: Batch, seed: int) -> Counts:
    """How many images of a batch are read right after the model encoded and redrew them."""
    return count(sequence_accuracy(classifier, redraw_images(model, batch, seed), batch.labels, batch.lengths))


def count(shares: SequenceAccuracy) -> Counts:
    """The numbers behind the shares."""
    predicted, given, digits = shares
    return Counts(
        images=predicted.total,
        predicted_length=predicted.correct,
        given_length=given.correct,
        digits=digits.correct,
    )


@torch.no_grad()
def draw_images(model: Draw, batch: Batch, seed: int) -> Tensor:
    """Draw the labels of a batch from the prior: images (B, C, H, W) in [0, 1], on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for labels, lengths in zip(batch.labels.split(CHUNK), batch.lengths.split(CHUNK), strict=True):
        noise = model.noise(*labels.shape, generator)
        canvas = model.sample(labels.to(noise.device), lengths.to(noise.device), noise)
        images.append(cast(Tensor, canvas).sigmoid().cpu())
    return torch.cat(images)


@torch.no_grad()
def redraw_images(model: Draw, batch: Batch, seed: int) -> Tensor:
    """Encode and redraw the images of a batch: images (B, C, H, W) in [0, 1], on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for part in zip(*(tensor.split(CHUNK) for tensor in batch), strict=True):
        noise = model.noise(*part[1].shape, generator)
        images.append(model(*(tensor.to(noise.device) for tensor in part), noise).canvas.sigmoid().cpu())
    return torch.cat(images)
