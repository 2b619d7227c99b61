"""The judge of generated sequences: train the multi-digit classifier, measure it, keep it in a folder, read with it."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad
from tqdm import tqdm

from fastdraw.data import Source
from fastdraw.errors import FastdrawError
from fastdraw.evaluation.reader import Accuracy, accuracy
from fastdraw.files import write_atomically
from fastdraw.models.classifier import ClassifierConfig, DigitClassifier, Logits, decode, sequence_loss
from fastdraw.training.checkpoint import check_layout, read_checkpoint, write_checkpoint

CONFIG, METRICS, MODEL = "config.json", "metrics.json", "model.safetensors"
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 1e-2
WARMUP = 0.15
SMOOTHING = 0.98
PART = 500  # images that are read at a time, as the activations of all at once would take gigabytes


class Augmentation(BaseModel):
    """How each training image is changed at random, so that few images teach as many would."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shift: float = Field(2.0, ge=0, description="pixels that it moves at most, along each axis")
    scale: float = Field(0.1, ge=0, lt=1, description="share by which each axis is stretched or shrunk at most")
    slant: float = Field(0.0, ge=0, description="pixels across per pixel down by which it leans at most")
    contrast: float = Field(0.3, ge=0, lt=1, description="share by which the contrast rises or falls at most")
    inversion: float = Field(0.0, ge=0, le=1, description="share of images whose dark and light are exchanged")


class SequenceAccuracy(NamedTuple):
    """Whole sequences with the length predicted; with the length given; single digits with the length given."""

    predicted: Accuracy
    given: Accuracy
    digits: Accuracy


def train_classifier(
    source: Source,
    config: ClassifierConfig,
    steps: int,
    seed: int = 0,
    augmentation: Augmentation | None = None,
    device: torch.device | str = "cpu",
) -> DigitClassifier:
    """Train a classifier with AdamW on mixed batches 0..steps-1 of a source, the learning rate rising, then falling.

    Args:
        source: images to train on, with their sequences.
        config: of the classifier; its size of images and longest sequence must suit the source.
        steps: batches to train on.
        seed: fixes weights, dropout and augmentation; torch's global random state is left alone.
        augmentation: of the training images; None: the defaults.
        device: to train on.
    Returns:
        The classifier, in evaluation mode.
    Raises:
        FastdrawError: images of another size, sequences that are too long, a batch of one for a classifier that is
            batch-normalised, or a loss that is not finite.
    """
    device, augmentation = torch.device(device), augmentation or Augmentation()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        classifier = DigitClassifier(config).to(device).to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(classifier.parameters(), PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, PEAK_LEARNING_RATE, total_steps=steps, pct_start=WARMUP
        )
        average = math.nan
        with tqdm(total=steps, unit="step", disable=None) as bar:
            for step in range(steps):
                image, labels, lengths = source.mixed_batch(step)
                _check(image, lengths, config)
                if len(image) < 2 and config.kind == "goodfellow-bn":
                    raise FastdrawError("batch normalisation takes at least 2 images in a batch, got 1")
                logits = classifier(augment(image.to(device), augmentation))
                loss = sequence_loss(logits, labels.to(device), lengths.to(device))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                value = loss.item()
                if not math.isfinite(value):
                    raise FastdrawError(f"the classifier's loss is {value:g} at step {step + 1}: not finite")
                average = value if step == 0 else SMOOTHING * average + (1 - SMOOTHING) * value
                bar.set_postfix(loss=f"{average:.3f}", refresh=False)
                bar.update()
    return classifier.eval()


def augment(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Change each of images (B, C, H, W) in [0, 1] at random; what comes in from outside repeats the border.

    There is no change of brightness, to which the classifier is blind.
    """
    batch, _, height, width = images.shape

    def spread(limit: float) -> Tensor:
        return (2 * torch.rand(batch, device=images.device) - 1) * limit

    rows = torch.zeros(batch, 2, 3, device=images.device)
    rows[:, 0, 0] = 1 + spread(augmentation.scale)
    rows[:, 1, 1] = 1 + spread(augmentation.scale)
    rows[:, 0, 1] = spread(augmentation.slant) * height / width
    rows[:, 0, 2] = spread(augmentation.shift) * 2 / width
    rows[:, 1, 2] = spread(augmentation.shift) * 2 / height
    grid = affine_grid(rows, list(images.shape), align_corners=False)
    images = grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast = 1 + spread(augmentation.contrast)
    contrast = torch.where(torch.rand_like(contrast) < augmentation.inversion, -contrast, contrast)
    return images * contrast[:, None, None, None]


@torch.inference_mode()
def read_sequences(classifier: DigitClassifier, images: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Read the digits of images (B, C, H, W) in [0, 1], and how many there are where lengths (B,) are not given.

    Returns:
        labels (B, M) int64, left to right, 0 beyond the length; lengths (B,) int64.
    Raises:
        FastdrawError: images of another size than the classifier's, or lengths out of 1..M.
    """
    _check(images, lengths, classifier.config)
    device = classifier.length.weight.device
    logits = [classifier(part.to(device)) for part in images.split(PART)]
    labels, lengths = decode(Logits(*map(torch.cat, zip(*logits, strict=True))), lengths)
    return labels.to(images.device), lengths.to(images.device)


def sequence_accuracy(classifier: DigitClassifier, images: Tensor, labels: Tensor, lengths: Tensor) -> SequenceAccuracy:
    """How many of the sequences labels (B, L), of which lengths (B,) count, are read from images (B, C, H, W); B >= 1.

    Raises:
        FastdrawError: as `read_sequences`.
    """
    given, _ = read_sequences(classifier, images, lengths)
    predicted, predicted_lengths = read_sequences(classifier, images)
    asked = pad(labels, (0, given.shape[1] - labels.shape[1]))
    there = torch.arange(given.shape[1]) < lengths[:, None]
    return SequenceAccuracy(
        accuracy(torch.cat([predicted, predicted_lengths[:, None]], 1), torch.cat([asked, lengths[:, None]], 1)),
        accuracy(given, asked),
        accuracy(given[there][:, None], asked[there][:, None]),
    )


def measure_classifier(
    classifier: DigitClassifier, images: Tensor, labels: Tensor, lengths: Tensor
) -> dict[str, dict[str, dict[str, Any]]]:
    """`sequence_accuracy` of each length that occurs, "1", "2", .., and of "all", as nested dictionaries for JSON."""
    groups = {str(length): lengths == length for length in sorted(set(lengths.tolist()))}
    groups["all"] = torch.ones_like(lengths, dtype=torch.bool)
    return {
        name: {
            kind: share._asdict()
            for kind, share in sequence_accuracy(classifier, images[rows], labels[rows], lengths[rows])
            ._asdict()
            .items()
        }
        for name, rows in groups.items()
    }


def save_classifier(classifier: DigitClassifier, metrics: dict[str, Any], folder: Path) -> None:
    """Write config.json, metrics.json and, at the end, model.safetensors into a folder, which is made.

    Raises:
        FastdrawError: the folder cannot be made, or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FastdrawError(f"cannot make the folder {folder}: {error.strerror}") from None
    write_atomically(folder / CONFIG, (classifier.config.model_dump_json(indent=2) + "\n").encode())
    write_atomically(folder / METRICS, (json.dumps(metrics, indent=2) + "\n").encode())
    write_checkpoint(folder / MODEL, classifier.state_dict(), classifier.config)


def load_classifier(folder: Path, device: torch.device | str = "cpu") -> DigitClassifier:
    """Load a classifier that `save_classifier` wrote, in evaluation mode.

    Raises:
        FastdrawError: a file is missing or damaged, or the two do not belong together.
    """
    for path in (folder / CONFIG, folder / MODEL):
        if not path.is_file():
            raise FastdrawError(f"{path} is missing: expected the --out folder of fastdraw train-classifier")
    try:
        config = ClassifierConfig.model_validate_json((folder / CONFIG).read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise FastdrawError(f"{folder / CONFIG} is no classifier's: {name or 'file'}: {first['msg']}") from None
    except OSError as error:
        raise FastdrawError(f"{folder / CONFIG} cannot be read: {error.strerror}") from None
    tensors = read_checkpoint(folder / MODEL)
    with torch.device("meta"):
        classifier = DigitClassifier(config)
    expected = {name: (value.dtype, tuple(value.shape)) for name, value in classifier.state_dict().items()}
    check_layout(folder / MODEL, tensors, expected)
    classifier.load_state_dict(tensors, assign=True)
    return classifier.to(device).to(memory_format=torch.channels_last).eval()


def _check(images: Tensor, lengths: Tensor | None, config: ClassifierConfig) -> None:
    size = (config.channels, config.height, config.width)
    if tuple(images.shape[1:]) != size:
        raise FastdrawError(
            f"images must be (B, {', '.join(map(str, size))}) for this classifier, got {tuple(images.shape)}"
        )
    if lengths is not None and lengths.numel():
        least, greatest = (int(value) for value in lengths.aminmax())
        if least < 1 or greatest > config.longest:
            raise FastdrawError(f"lengths must lie in 1..{config.longest} for this classifier, got {least}..{greatest}")
