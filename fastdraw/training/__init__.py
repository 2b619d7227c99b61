"""Training: settings and presets, the loop, and runs that can be stopped at any moment and resumed bit for bit."""

from fastdraw.training.bound import Bound, measure_bound
from fastdraw.training.export import save_model
from fastdraw.training.loop import load_draw, load_model, resume, train, train_or_resume
from fastdraw.training.run import Run
from fastdraw.training.settings import Settings, preset_names, resolve
from fastdraw.training.sources import held_out_at, held_out_images, held_out_source

__all__ = [
    "Bound",
    "Run",
    "Settings",
    "held_out_at",
    "held_out_images",
    "held_out_source",
    "load_draw",
    "load_model",
    "measure_bound",
    "preset_names",
    "resolve",
    "resume",
    "save_model",
    "train",
    "train_or_resume",
]
