"""What trained models are judged by: pictures, claims as numbers, and networks that count how many digits they read."""

from fastdraw.evaluation.claims import drawing_claims, image_claims, render_claims
from fastdraw.evaluation.classifier import (
    Augmentation,
    SequenceAccuracy,
    augment,
    load_classifier,
    measure_classifier,
    read_sequences,
    save_classifier,
    sequence_accuracy,
    train_classifier,
)
from fastdraw.evaluation.importance import ImportanceBound, bounds_by_image, importance_weighted_bound
from fastdraw.evaluation.pictures import (
    generation_gif,
    generation_strip,
    reconstruction_gif,
    reconstruction_grid,
    sample_grid,
)
from fastdraw.evaluation.plots import attention_map, comparison_curves, curves, kl_by_step, mean_attention
from fastdraw.evaluation.reader import Accuracy, accuracy, read_digits, reader_accuracy, train_reader

__all__ = [
    "Accuracy",
    "Augmentation",
    "ImportanceBound",
    "SequenceAccuracy",
    "accuracy",
    "attention_map",
    "augment",
    "bounds_by_image",
    "comparison_curves",
    "curves",
    "drawing_claims",
    "generation_gif",
    "generation_strip",
    "image_claims",
    "importance_weighted_bound",
    "kl_by_step",
    "load_classifier",
    "mean_attention",
    "measure_classifier",
    "read_digits",
    "read_sequences",
    "reader_accuracy",
    "reconstruction_gif",
    "reconstruction_grid",
    "render_claims",
    "sample_grid",
    "save_classifier",
    "sequence_accuracy",
    "train_classifier",
    "train_reader",
]
