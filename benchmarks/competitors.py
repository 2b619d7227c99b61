"""Who competes, by the kind of work: each prepares a call that does the work once."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any

import torch

from benchmarks.floor import floor_step
from benchmarks.peers import ours, plain
from benchmarks.work import Work

Prepare = Callable[[Work], Callable[[], Any]]


def _of_jax(name: str) -> Prepare:
    """What is imported only where it competes, since JAX need not be installed."""
    return lambda work: getattr(import_module("benchmarks.peers.jax_draw"), name)(work)


def _equal_lengths(work: Work) -> Callable[[], Any]:
    """As many samples and sample-steps as with mixed lengths, but every sample takes as many steps."""
    steps = work.steps * (work.digits + 1) // (2 * work.digits)
    return ours.training_step(replace(work, steps=steps, mixed=False))


COMPETITORS: dict[str, dict[str, Prepare]] = {
    "training": {
        "ours": ours.training_step,
        "floor": floor_step,
        "eager": plain.training_step,
        "compile": partial(plain.training_step, compiled=True),
        "jax": _of_jax("training_step"),
        "bfloat16": partial(ours.training_step, dtype=torch.bfloat16),
        "equal": _equal_lengths,
    },
    "drawing": {
        "ours": ours.drawing,
        "eager": plain.drawing,
        "compile": partial(plain.drawing, compiled=True),
        "jax": _of_jax("drawing"),
    },
}
