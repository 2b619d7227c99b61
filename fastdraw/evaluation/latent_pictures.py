"""What shows what codes hold: images on a grid of z, where images of each label lie, and a figure of that.

Ten labels are more than colours alone can tell apart, so that a label is also written where its images lie.
"""

import math
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from torch import Tensor

from fastdraw.evaluation.plots import write_figure

REACH = 5.0  # of the papers' sweeps of z, in standard deviations of the prior
BINS = 100
PERPLEXITY = 30.0


def sweep(count: int, reach: float = REACH) -> Tensor:
    """z (count, 1) at equal distances from -reach to reach."""
    return torch.linspace(-reach, reach, count)[:, None]


def grid(side: int, reach: float = REACH) -> Tensor:
    """z (side * side, 2) over a square, row by row: the first number grows from left to right, the second downwards."""
    values = torch.linspace(-reach, reach, side)
    return torch.cartesian_prod(values, values).flip(1)


def tsne(codes: Tensor, seed: int = 0) -> Tensor:
    """Two numbers for each of codes (N, Z), N >= 4, that keep neighbours together (van der Maaten and Hinton 2008)."""
    from sklearn.manifold import TSNE  # takes a second to import

    perplexity = min(PERPLEXITY, (len(codes) - 1) / 3)
    method = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return torch.from_numpy(method.fit_transform(codes.numpy()))


def draw_tiles(axes: Axes, images: Tensor, columns: int) -> None:
    """Draw images (B, C, H, W) in [0, 1], C = 1 or 3, side by side without a gap, row by row."""
    batch, channels, height, width = images.shape
    rows = math.ceil(batch / columns)
    page = images.new_ones(rows * columns, channels, height, width)
    page[:batch] = images
    page = page.view(rows, columns, channels, height, width).permute(0, 3, 1, 4, 2)
    pixels = page.reshape(rows * height, columns * width, channels).clamp(0, 1)
    axes.imshow(pixels.expand(-1, -1, 3).cpu().numpy(), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def embedding_plot(places: Tensor, labels: Tensor | None, path: Path, of: str = "z") -> None:
    """Write where codes lie: on a line as histograms, one for each label, in a plane as points in the labels' colours.

    Args:
        places (N, 1) or (N, 2): of the codes.
        labels (N,): int64, 0 to 9; None: one histogram, or one colour.
        of: what the axes show.
    """
    flat = places.shape[1] == 2
    figure = Figure((7, 7) if flat else (8, 4), layout="constrained")
    axes = figure.subplots()
    kinds = torch.zeros(len(places), dtype=torch.int64) if labels is None else labels
    if flat:
        draw_scatter(axes, places, kinds, named=labels is not None)
        axes.invert_yaxis()  # as on a plane of images
    else:
        draw_histogram(axes, places[:, 0], kinds)
    axes.set(title=f"codes of {len(places)} images", xlabel=f"{of}, first number" if flat else of)
    axes.set_ylabel(f"{of}, second number" if flat else "label")
    if not flat and labels is None:
        axes.set(ylabel="images", yticks=[])
    write_figure(figure, path)


def draw_histogram(axes: Axes, values: Tensor, labels: Tensor) -> None:
    """Draw how values (N,) are distributed, a row for each of labels (N,), all on one scale."""
    edges = np.linspace(float(values.min()), float(values.max()), BINS + 1)
    kinds = labels.unique().tolist()
    counts = [np.histogram(values[labels == kind].numpy(), edges)[0] for kind in kinds]
    most = max(count.max() for count in counts)
    for place, (kind, count) in enumerate(zip(kinds, counts, strict=True)):
        axes.stairs(place + 0.95 * count / most, edges, baseline=place, fill=True, color=_colour(kind))
        axes.axhline(place, color="0.6", linewidth=0.6)
    axes.set_yticks(np.arange(len(kinds)) + 0.4, [str(kind) for kind in kinds])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def draw_scatter(axes: Axes, points: Tensor, labels: Tensor, named: bool = True) -> None:
    """Draw points (N, 2) in the colours of their labels (N,), each label, if named, written amid its points."""
    size = min(max(12_000 / len(points), 3), 12)
    for kind in labels.unique().tolist():
        chosen = points[labels == kind]
        axes.scatter(chosen[:, 0], chosen[:, 1], s=size, color=_colour(kind), alpha=0.5, linewidths=0)
    for kind in labels.unique().tolist() if named else ():
        x, y = points[labels == kind].median(0).values.tolist()
        outline = [withStroke(linewidth=3, foreground="white")]
        axes.text(x, y, str(kind), ha="center", va="center", fontsize=13, weight="bold", path_effects=outline)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(label: int) -> tuple[float, float, float]:
    red, green, blue, _ = colormaps["tab10"](label % 10)
    return red, green, blue
