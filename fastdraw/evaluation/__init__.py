"""What trained models are judged by: pictures to look at, claims as numbers, and a reader that counts digits."""

from fastdraw.evaluation.claims import drawing_claims, image_claims, render_claims
from fastdraw.evaluation.importance import ImportanceBound, importance_weighted_bound
from fastdraw.evaluation.pictures import (
    generation_gif,
    generation_strip,
    reconstruction_gif,
    reconstruction_grid,
    sample_grid,
)
from fastdraw.evaluation.plots import attention_map, curves, mean_attention
from fastdraw.evaluation.reader import Accuracy, accuracy, read_digits, reader_accuracy, train_reader

__all__ = [
    "Accuracy",
    "ImportanceBound",
    "accuracy",
    "attention_map",
    "curves",
    "drawing_claims",
    "generation_gif",
    "generation_strip",
    "image_claims",
    "importance_weighted_bound",
    "mean_attention",
    "read_digits",
    "reader_accuracy",
    "reconstruction_gif",
    "reconstruction_grid",
    "render_claims",
    "sample_grid",
    "train_reader",
]
