"""Figures 3 to 5 of paper 001, and Table 1 as pictures: losses against beta, and test images redrawn at every beta.

Figures 3 to 5 are of one model each: images that it makes, where the test images of each digit lie, and its losses.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from fastdraw.evaluation.latent import decode
from fastdraw.evaluation.latent_pictures import (
    REACH,
    draw_histogram,
    draw_scatter,
    draw_tiles,
    grid,
    sweep,
    tsne,
)
from fastdraw.evaluation.pictures import image_rows
from fastdraw.evaluation.plots import COLOURS, TEST, TRAIN, write_figure
from fastdraw.evaluation.table1 import PAPER, Results, Row
from fastdraw.models import Vae

SIDE = 10
GRID_SIDE = 20
POINTS = 3000  # test images that t-SNE takes
SEED = 0


class Measured(NamedTuple):
    """A trained model of a row with what its figures need.

    Attributes:
        mu: of q(z | x) of all test images (N, Z).
        rows: of its metrics.
        epoch: steps that an epoch takes; not a whole number.
    """

    row: Row
    model: Vae
    mu: Tensor
    rows: Sequence[Mapping[str, Any]]
    epoch: float


def figure_3(run: Measured, labels: Tensor, path: Path) -> None:
    """Write what a z of one number holds: images along it, how the test images lie on it, and the losses."""
    figure, (left, middle, right) = _panels()
    draw_tiles(left, decode(run.model, sweep(SIDE * SIDE)[None]), SIDE)
    left.set_title(f"z from {-REACH:g}, top left, to {REACH:g}, bottom right")
    draw_histogram(middle, run.mu[:, 0], labels)
    middle.set(title="mean of q(z | x) of the test images", xlabel="z", ylabel="digit")
    _draw_losses(right, run)
    write_figure(figure, path)


def figure_4(run: Measured, labels: Tensor, path: Path) -> None:
    """Write what a z of two numbers holds: images on a grid of it, where the test images lie, and the losses."""
    figure, (left, middle, right) = _panels()
    draw_tiles(left, decode(run.model, grid(GRID_SIDE)[None]), GRID_SIDE)
    left.set_title(f"z from ({-REACH:g}, {-REACH:g}), top left, to ({REACH:g}, {REACH:g}), bottom right")
    draw_scatter(middle, run.mu, labels)
    middle.set(title="mean of q(z | x) of the test images, by digit", xlabel="first number of z", ylabel="second")
    # As on the grid beside it.
    middle.invert_yaxis()
    _draw_losses(right, run)
    write_figure(figure, path)


def figure_5(run: Measured, images: Tensor, labels: Tensor, path: Path) -> None:
    """Write what a z of many numbers holds: test images redrawn, drawings, t-SNE of the test images, and the losses.

    Args:
        images (N, 1, H, W): the test images, uint8.
    """
    figure = Figure((17, 5.4), layout="constrained")
    places = figure.add_gridspec(1, 3)
    left, middle, right = (figure.add_subfigure(places[0, column]) for column in range(3))
    above, below = left.subplots(2, 1, height_ratios=[6, 4])
    # In rows of ten, an image each time above its reconstruction.
    pairs = [images[: 3 * SIDE].float() / 255, decode(run.model, run.mu[None, : 3 * SIDE])]
    tiles = torch.stack([part.unflatten(0, (3, SIDE)) for part in pairs], dim=1)
    draw_tiles(above, tiles.flatten(0, 2), SIDE)
    above.set_title("test images, each above its reconstruction")
    noise = run.model.noise(4 * SIDE, generator=torch.Generator().manual_seed(SEED))
    draw_tiles(below, decode(run.model, noise), SIDE)
    below.set_title("drawn from the prior")
    # From all of the set: its halves were written by other people.
    chosen = torch.linspace(0, len(run.mu) - 1, min(POINTS, len(run.mu))).long()
    axes = middle.subplots()
    draw_scatter(axes, tsne(run.mu[chosen]), labels[chosen])
    axes.set(title=f"t-SNE of the means of q(z | x) of {len(chosen)} test images, by digit", xticks=[], yticks=[])
    _draw_losses(right.subplots(), run)
    write_figure(figure, path)


def beta_curves(results: Results, path: Path) -> None:
    """Write BCE and KL on the test images against beta, at the largest n of the table, ours and the paper's."""
    latent = max(row.latent for row in PAPER)
    figure = Figure((7, 4.4), layout="constrained")
    axes = figure.subplots()
    rows = sorted(row for row in PAPER if row.latent == latent)
    for measure, title, colour in (("bce", "BCE", COLOURS[0]), ("kl", "KL", COLOURS[1])):
        for seed in sorted({run.seed for run in results.runs}):
            runs = [run for run in results.runs if run.latent == latent and run.seed == seed]
            points = sorted((run.beta, getattr(run.test, measure).value) for run in runs)
            label = f"{title}, ours" if seed == results.runs[0].seed else None
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, label=label)
        paper = [getattr(PAPER[row], measure) for row in rows]
        axes.plot(
            [row.beta for row in rows],
            paper,
            color=colour,
            linestyle="none",
            marker="s",
            markersize=9,
            fillstyle="none",
            label=f"{title}, the paper's",
        )
    axes.set_xscale("log")
    axes.set_xticks([row.beta for row in rows], [f"{row.beta:g}" for row in rows], minor=False)
    axes.minorticks_off()
    axes.set(title=f"n = {latent}, test images of MNIST", xlabel="beta", ylabel="nats per image")
    axes.set_ylim(bottom=0)
    _tidy(axes)
    write_figure(figure, path)


def redrawn_by_row(runs: Sequence[Measured], images: Tensor, labels: Tensor, path: Path) -> None:
    """Write one test image of each digit above what every model makes of it, for images (N, 1, H, W) uint8."""
    chosen = torch.tensor([int((labels == digit).nonzero()[0]) for digit in labels.unique().tolist()])
    rows = {"test images": images[chosen].float() / 255}
    for run in runs:
        rows[f"n={run.row.latent} beta={run.row.beta:g}"] = decode(run.model, run.mu[None, chosen])
    image_rows(rows, path)


def epoch_losses(
    rows: Sequence[Mapping[str, Any]], epoch: float
) -> Sequence[tuple[float, Mapping[str, float], Mapping[str, Any]]]:
    """For each measurement on test images its epoch, the mean train losses over the epoch before it, and its row.

    A row of training is of a single batch. A measurement before which no batch was kept for an epoch is left out.

    Args:
        rows: of metrics.
        epoch: steps that an epoch takes.
    """
    found = []
    for test in (row for row in rows if row["split"] == "test"):
        batches = [
            row for row in rows if row["split"] == "train" and test["step"] - epoch < row["step"] <= test["step"]
        ]
        if batches:
            mean = {key: sum(row[key] for row in batches) / len(batches) for key in ("loss", "nll", "kl")}
            found.append((test["step"] / epoch, mean, test))
    return found


def _panels() -> tuple[Figure, Sequence[Axes]]:
    figure = Figure((17, 5.4), layout="constrained")
    return figure, list(figure.subplots(1, 3))


def _draw_losses(axes: Axes, run: Measured) -> None:
    """Draw the loss on both splits against the epoch, and the paper's at the end, but for the first epochs' fall."""
    points = epoch_losses(run.rows, run.epoch)
    epochs = [epoch for epoch, _, _ in points]
    losses = {
        "train, mean of an epoch's logged batches": [train["loss"] for _, train, _ in points],
        "test": [test["loss"] for _, _, test in points],
    }
    for (label, values), colour in zip(losses.items(), (TRAIN, TEST), strict=True):
        axes.plot(epochs, values, color=colour, label=label)
    paper = PAPER[run.row].loss
    axes.axhline(paper, color="0.3", linestyle="--", linewidth=1, label=f"the paper's on test images, {paper:.2f}")
    late = [
        value
        for values in losses.values()
        for epoch, value in zip(epochs, values, strict=True)
        if 20 * epoch >= epochs[-1]
    ]
    space = 0.05 * (max(*late, paper) - min(*late, paper)) or 1
    axes.set_ylim(min(*late, paper) - space, max(*late, paper) + space)
    axes.set(title="negative bound", xlabel="epoch", ylabel="nats per image")
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
