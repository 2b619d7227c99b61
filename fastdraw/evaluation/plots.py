"""Plots: the bound against training steps, KL and attention against drawing steps, KL by number of z.

Colours are of Okabe and Ito's palette and the cividis map, which all kinds of colour vision tell apart.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from fastdraw.evaluation.pages import to_tile
from fastdraw.evaluation.pictures import spaced_steps
from fastdraw.files import write_atomically

DPI = 144
TRAIN, TEST = "#0072B2", "#D55E00"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
PANELS = {"loss": "negative bound", "nll": "reconstruction, $-\\log p(x|z)$", "kl": "KL of posterior from prior"}
MAX_POINTS = 100
MAX_TICKS = 24
FEWEST_BARS = 12  # that a figure has room for, so that few are not too wide


def curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the negative bound and its two parts against the training step.

    The vertical axis covers all but the first twentieth of the steps, where the loss falls from far above.

    Args:
        rows: at least one, with the keys step, split ("train" or "test"), and in nats per image loss, nll, kl; those
            that are not finite are left out.
    """
    figure = Figure((11, 3.4), layout="constrained")
    rows = _finite(rows)
    last = max((row["step"] for row in rows), default=0)
    for axes, (key, title) in zip(figure.subplots(1, 3), PANELS.items(), strict=True):
        for split, colour in (("train", TRAIN), ("test", TEST)):
            points = [(row["step"], row[key]) for row in rows if row["split"] == split]
            if points:
                _draw_curve(axes, np.asarray(points, float), split, colour)
        top = max((row[key] for row in rows if row["step"] >= last / 20), default=0)
        bottom = min((row[key] for row in rows), default=0)
        space = 0.05 * (top - bottom) or 1
        axes.set_ylim(bottom - space, top + space)
        axes.set(title=title, xlabel="training step", ylabel="nats per image")
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        if rows:
            axes.legend(frameon=False)
    write_figure(figure, path)


def comparison_curves(runs: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], path: Path) -> None:
    """Write the negative bound on test images against the training step, a colour for each model, a line for each run.

    The vertical axis covers the second half of the steps: before it a curriculum has not seen all lengths.

    Args:
        runs: at least one; the model's name, and rows as `curves` takes, of which those of the test split are drawn,
            and of those the finite ones.
    """
    runs = [(model, _finite([row for row in rows if row["split"] == "test"])) for model, rows in runs]
    figure = Figure((8, 4), layout="constrained")
    axes = figure.subplots()
    models = list(dict.fromkeys(model for model, _ in runs))
    for place, (model, rows) in enumerate(runs):
        steps, losses = ([row[key] for row in rows] for key in ("step", "loss"))
        label = model if all(model != other for other, _ in runs[:place]) else None
        colour = COLOURS[models.index(model) % len(COLOURS)]
        axes.plot(steps, losses, color=colour, marker="o", markersize=3, label=label)
    shown = [row for _, rows in runs for row in rows]
    last = max((row["step"] for row in shown), default=0)
    late = [row["loss"] for row in shown if 2 * row["step"] >= last] or [0]
    space = 0.05 * (max(late) - min(late)) or 1
    axes.set_ylim(min(late) - space, max(late) + space)
    axes.set(title="negative bound on test images", xlabel="training step", ylabel="nats per image")
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if shown:
        axes.legend(frameon=False)
    write_figure(figure, path)


def kl_by_step(kls: Mapping[int, Sequence[float]], path: Path) -> None:
    """Write the KL of each drawing step, a line for each number of labels.

    Args:
        kls: under a number of labels, the mean KL of every step in nats.
    """
    figure = Figure((8, 3.6), layout="constrained")
    axes = figure.subplots()
    for (length, kl), colour in zip(kls.items(), COLOURS, strict=False):
        label = f"{length} label{'s' * (length > 1)}, {sum(kl):.1f} nats in all"
        axes.plot(range(1, len(kl) + 1), kl, color=colour, marker="o", markersize=3, label=label)
    axes.set(title="KL of posterior from prior", xlabel="drawing step t", ylabel="nats per image")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    write_figure(figure, path)


def kl_bars(kls: Mapping[int, Sequence[float]], active: Mapping[int, int], path: Path) -> None:
    """Write the KL of every number of z, the largest first, with bars for each number of labels.

    Args:
        kls: under a number of labels, the mean KL of every number in nats.
        active: under the same, how many of them are active units, where that is known.
    """
    figure = Figure((8, 3.6), layout="constrained")
    axes = figure.subplots()
    total = np.sum(list(kls.values()), axis=0)
    order = np.argsort(-total, kind="stable")
    width = 0.8 / len(kls)
    for place, ((length, kl), colour) in enumerate(zip(kls.items(), COLOURS, strict=False)):
        of = f"{length} label{'s' * (length > 1)}, " if len(kls) > 1 else ""
        label = f"{of}{sum(kl):.1f} nats in all"
        if length in active:
            label += f", {active[length]} of {len(kl)} units active"
        axes.bar(np.arange(len(kl)) + place * width, np.asarray(kl)[order], width, color=colour, label=label)
    shown = np.arange(0, len(order), math.ceil(len(order) / MAX_TICKS))
    axes.set_xticks(shown, [str(order[place]) for place in shown])
    axes.set_xlim(-1, max(len(order), FEWEST_BARS))
    axes.set_title("KL of posterior from prior", loc="left")
    axes.set(xlabel="number of z, the most KL first", ylabel="nats per image")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    write_figure(figure, path)


def attention_map(
    attention: Tensor, names: Sequence[Sequence[str]], frames: Tensor, path: Path, label: str = "digit"
) -> None:
    """Write, for each sample, the canvases over a map of the attention weights, both against the drawing step.

    Args:
        attention (T, B, L): weights over the labels at each step.
        names: for each sample, what its labels are called, in their order.
        frames (T, B, C, H, W): the canvas after each step, in [0, 1].
        label: what a label is.
    """
    steps, batch, length = attention.shape
    _, _, _, height, width = frames.shape
    shown = spaced_steps(steps, 10)
    inches = 10
    strip, weights = inches / len(shown) * height / width, 0.3 * length
    figure = Figure((inches + 1.5, batch * (strip + weights + 0.5) + 0.5), layout="constrained")
    panels = np.asarray(figure.subplots(2 * batch, 1, sharex=True, height_ratios=[strip, weights] * batch)).reshape(
        -1, 2
    )
    for sample, (above, below) in enumerate(panels):
        above.imshow(
            _film(frames[[step - 1 for step in shown], sample]), extent=(0.5, steps + 0.5, 0, 1), aspect="auto"
        )
        above.axis("off")
        image = _draw_attention(below, attention[:, sample], names[sample])
        below.set_ylabel(label)
    below.set_xlabel("drawing step t")
    figure.colorbar(image, ax=list(panels.flat), label="attention weight", aspect=30)
    write_figure(figure, path)


def mean_attention(attentions: Mapping[str, Tensor], path: Path) -> None:
    """Write one map for each digit sequence: the attention weights, averaged over drawings, against the drawing step.

    Args:
        attentions: under the digits that were asked for, left to right, the weights (T, B, L) over them at each step of
            B drawings.
    """
    steps = [len(attention) for attention in attentions.values()]
    figure = Figure((0.15 * sum(steps) + 0.6 * len(steps) + 1.5, 2.4), layout="constrained")
    panels = figure.subplots(1, len(steps), squeeze=False, width_ratios=steps)[0]
    for axes, (digits, attention) in zip(panels, attentions.items(), strict=True):
        image = _draw_attention(axes, attention.mean(1), list(digits))
        axes.set(title=digits, xlabel="drawing step t")
    panels[0].set_ylabel("digit")
    figure.colorbar(image, ax=list(panels), label="mean attention weight", fraction=0.05, aspect=12)
    write_figure(figure, path)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI)
    write_atomically(path, data.getvalue())


def _finite(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Training stops where its own loss is not finite, but not where that of a test has overflown."""
    return [row for row in rows if all(math.isfinite(row[key]) for key in PANELS)]


def _draw_attention(axes: Axes, attention: Tensor, names: Sequence[str]) -> AxesImage:
    """Draw weights (T, L), a row for each label."""
    steps, length = attention.shape
    axes.set_yticks(range(length), list(names))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes.imshow(
        attention.T.detach().float().cpu().numpy(),
        extent=(0.5, steps + 0.5, length - 0.5, -0.5),
        aspect="auto",
        cmap="cividis",
        vmin=0,
        vmax=1,
        interpolation="nearest",
    )


def _draw_curve(axes: Axes, points: np.ndarray, split: str, colour: str) -> None:
    """Draw points (P, 2) of step and value; many points, which then are noisy, are averaged over a fiftieth of them."""
    step, value = points.T
    if len(points) < MAX_POINTS:
        axes.plot(step, value, color=colour, marker="o", markersize=3, label=split)
    else:
        window = len(points) // 50 | 1
        mean = np.convolve(value, np.full(window, 1 / window), "valid")
        axes.plot(step, value, color=colour, alpha=0.25, linewidth=0.7)
        axes.plot(step[window // 2 : -(window // 2)], mean, color=colour, label=split)


def _film(frames: Tensor) -> np.ndarray:
    """Frames (T, C, H, W) side by side on white."""
    tiles = [np.asarray(to_tile(frame, 96)) for frame in frames]
    return np.concatenate([np.pad(tile, ((4, 4), (4, 4), (0, 0)), constant_values=255) for tile in tiles], axis=1)
