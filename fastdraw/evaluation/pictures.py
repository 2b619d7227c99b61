"""Pictures of drawn images: sample grids, generation strips, reconstructions, ways between codes, animated canvases.

Images are float tensors in [0, 1] with one channel (grey) or three (RGB). Every function writes one file, whole or not
at all.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from fastdraw.evaluation.pages import CAPTION_HEIGHT, Colour, set_page, to_tile
from fastdraw.files import write_atomically
from fastdraw.reference.filterbank import window_geometry

TILE_HEIGHT = 96
GIF_TILE_HEIGHT = 128
SHEET_HEIGHT = 1120
STEP_MS, LAST_STEP_MS = 120, 2500
# Orange and sky blue, told from every grey and from each other by all kinds of colour vision.
WRITE, READ = (230, 159, 0), (86, 180, 233)


def sample_grid(images: Tensor, captions: Sequence[str], path: Path, columns: int = 10) -> None:
    """Write images (B, C, H, W) row by row, each under its caption, usually the digits that were asked for."""
    tiles = [to_tile(image, TILE_HEIGHT) for image in images]
    write_png(set_page(_rows(tiles, columns), _rows(captions, columns)), path)


def generation_strip(frames: Tensor, path: Path, columns: int = 10, captions: Sequence[str] = ()) -> None:
    """Write frames (T, B, C, H, W) as one row per run, the canvas after uniformly spaced steps from left to right.

    Args:
        columns: steps to show; the last is always step T.
        captions: one on the left of each row.
    """
    steps = spaced_steps(len(frames), columns)
    rows = [[to_tile(frames[step - 1, run], TILE_HEIGHT) for step in steps] for run in range(frames.shape[1])]
    heads = [f"t = {step}" for step in steps]
    write_png(set_page(rows, captions=[heads], labels=captions), path)


def stage_grid(originals: Tensor | None, stages: Sequence[Tensor], path: Path) -> None:
    """Write what each stage of a model makes of every image (B, C, H, W), below the original where there is one."""
    names = {1: ["model"], 2: ["coarse", "fine"]}.get(len(stages), [f"stage {n}" for n in range(1, len(stages) + 1)])
    shown = stages if originals is None else [originals, *stages]
    tiles = [[to_tile(image, TILE_HEIGHT) for image in images] for images in shown]
    columns = _columns(len(tiles[0]), tiles[0][0].width, len(tiles) * tiles[0][0].height)
    groups = list(zip(*(_rows(row, columns) for row in tiles), strict=True))
    labels = ["data"] * (len(shown) - len(stages)) + names
    write_png(set_page([row for group in groups for row in group], labels=labels * len(groups)), path)


def interpolation_grid(first: Tensor, images: Tensor, last: Tensor, path: Path) -> None:
    """Write a row for each way between two images: first and last (B, C, H, W) at its ends, images (S, B, C, H, W)."""
    shares = [f"{step / (len(images) - 1):.2f}" for step in range(len(images))]
    rows = [
        [to_tile(image, TILE_HEIGHT) for image in (first[row], *images[:, row], last[row])] for row in range(len(first))
    ]
    write_png(set_page(rows, [["data", *shares, "data"]]), path)


def interpolation_gif(first: Tensor, images: Tensor, last: Tensor, path: Path) -> None:
    """Write an animation of ways between images, there and back again; arguments as of `interpolation_grid`."""
    ends = [[to_tile(image, GIF_TILE_HEIGHT) for image in end] for end in (first, last)]
    columns = 3 * _columns(len(first), 3 * ends[0][0].width, ends[0][0].height)
    pages = []
    for step in images:
        middle = [to_tile(image, GIF_TILE_HEIGHT) for image in step]
        tiles = [tile for row in zip(ends[0], middle, ends[1], strict=True) for tile in row]
        heads = [["data", "model", "data"] * (min(columns, len(tiles)) // 3)]
        pages.append(set_page(_rows(tiles, columns), heads))
    _write_gif(pages + pages[-2::-1], path)


def traversal_grid(
    images: Tensor, values: Sequence[float], labels: Sequence[str], own: Sequence[float], path: Path
) -> None:
    """Write images (D, V, C, H, W) as a row for each number of a code, under the values that it takes.

    Args:
        values: V of them.
        labels: one on the left of each row.
        own: for each row, the value that the number has in the code; the image of the nearest one is framed.
    """
    rows = []
    for of_row, value in zip(images, own, strict=True):
        rows.append([to_tile(image, TILE_HEIGHT) for image in of_row])
        tile = min(zip(values, rows[-1], strict=True), key=lambda pair: abs(pair[0] - value))[1]
        ImageDraw.Draw(tile).rectangle((0, 0, tile.width - 1, tile.height - 1), outline=WRITE, width=3)
    heads = [[f"{value:.3g}" for value in values]]
    write_png(set_page(rows, heads, labels, legend={"nearest to the code as it was": WRITE}), path)


def traversal_line(images: Tensor, values: Sequence[float], path: Path) -> None:
    """Write images (V, C, H, W) of codes of one number, row by row, with its first and its last value."""
    tiles = [to_tile(image, TILE_HEIGHT) for image in images]
    footer = f"z from {values[0]:.3g} at the top left to {values[-1]:.3g} at the bottom right"
    write_png(set_page(_rows(tiles, round(math.sqrt(len(tiles)))), footer=footer), path)


def traversal_plane(images: Tensor, values: Sequence[float], path: Path) -> None:
    """Write images (V, V, C, H, W) of codes of two numbers without gaps; the first number grows to the right."""
    sheet = torch.cat([torch.cat(list(row), dim=2) for row in images], dim=1)
    reach = f"{values[0]:.3g} to {values[-1]:.3g}"
    footer = f"first number of z from {reach}, left to right; second from {reach}, top to bottom"
    write_png(set_page([[to_tile(sheet, SHEET_HEIGHT)]], footer=footer), path)


def image_rows(rows: Mapping[str, Tensor], path: Path) -> None:
    """Write a row of images (B, C, H, W) for each label, which stands on its left; all rows of the same B."""
    tiles = [[to_tile(image, TILE_HEIGHT) for image in images] for images in rows.values()]
    write_png(set_page(tiles, labels=list(rows)), path)


def generation_gif(
    frames: Tensor, write_windows: Tensor | None, n: int, stride: str, path: Path, captions: Sequence[str] = ()
) -> None:
    """Write an animation of drawings from the prior, with the part that each step writes to in an orange box.

    There is no read window: nothing is read where there is no image. The box covers the n x n grid of filters and half
    a spacing around it, clipped to the canvas; its line is as thick as two standard deviations of a filter, within 1 to
    4 canvas pixels.

    Args:
        frames (T, B, C, H, W): the canvas after each step.
        write_windows (T, B, 5): as they leave the linear layer; None, for a model that writes without: no box.
        n: side of the written patch.
        stride: "max" or "per_axis", as in `gaussian_filterbank`.
        captions: one above each canvas.
    """
    steps, batch, _, height, width = frames.shape
    boxes = _boxes(write_windows, n, stride, (height, width))
    pages = []
    for step in range(steps):
        tiles = [to_tile(frames[step, run], GIF_TILE_HEIGHT) for run in range(batch)]
        for run, tile in enumerate(tiles):
            _draw_box(tile, boxes, step, run, height, WRITE)
        columns = _columns(batch, tiles[0].width, tiles[0].height + CAPTION_HEIGHT)
        pages.append(
            set_page(
                _rows(tiles, columns),
                _rows(captions, columns),
                footer=_progress(step, steps),
                legend={"write window": WRITE} if boxes else {},
            )
        )
    _write_gif(pages, path)


def reconstruction_gif(
    images: Tensor,
    frames: Tensor,
    read_windows: Tensor | None,
    write_windows: Tensor | None,
    n: tuple[int, int],
    stride: str,
    path: Path,
) -> None:
    """Write an animation of images being redrawn: each with its read window, beside its canvas with its write window.

    Boxes are drawn as in `generation_gif`, in blue what is read and in orange what is written.

    Args:
        images (B, C, H, W): what is read, all redrawn in the same number of steps.
        frames (T, B, C, H, W): the canvas after each step.
        read_windows, write_windows (T, B, 5): as they leave the linear layers; None, for a model without: no box.
        n: sides of the read glimpse and of the written patch.
        stride: "max" or "per_axis", as in `gaussian_filterbank`.
    """
    steps, batch, _, height, width = frames.shape
    reads, writes = (
        _boxes(windows, side, stride, (height, width))
        for windows, side in zip((read_windows, write_windows), n, strict=True)
    )
    legend = ({"read window": READ} if reads else {}) | ({"write window": WRITE} if writes else {})
    pages = []
    for step in range(steps):
        tiles = []
        for run in range(batch):
            data, canvas = (to_tile(image, GIF_TILE_HEIGHT) for image in (images[run], frames[step, run]))
            _draw_box(data, reads, step, run, height, READ)
            _draw_box(canvas, writes, step, run, height, WRITE)
            tiles += [data, canvas]
        columns = 2 * _columns(batch, 2 * tiles[0].width, tiles[0].height)
        heads = [["data", "canvas"] * (min(columns, len(tiles)) // 2)]
        pages.append(set_page(_rows(tiles, columns), heads, footer=_progress(step, steps), legend=legend))
    _write_gif(pages, path)


def spaced_steps(steps: int, count: int) -> list[int]:
    """At most `count` of the steps 1..steps, uniformly spaced and ending with the last."""
    count = min(count, steps)
    return [math.ceil(steps * (k + 1) / count) for k in range(count)]


def _boxes(windows: Tensor | None, n: int, stride: str, size: tuple[int, int]) -> list[Tensor] | None:
    """Left, top, right and bottom of windows (T, B, 5) and the sigma of their filters, in pixels, each (T, B)."""
    if windows is None:
        return None
    at = window_geometry(windows.detach().float().cpu(), n, size, stride=stride)
    half_x, half_y = n / 2 * at.delta_x, n / 2 * at.delta_y
    # A pixel's colour fills the square around its coordinate: pixel 0 reaches from -0.5 to 0.5.
    return [at.gx - half_x + 0.5, at.gy - half_y + 0.5, at.gx + half_x + 0.5, at.gy + half_y + 0.5, at.sigma]


def _draw_box(tile: Image.Image, boxes: list[Tensor] | None, step: int, run: int, height: int, colour: Colour) -> None:
    """Draw the box of one step and run on an image of `height` pixels that was enlarged to a tile."""
    if boxes is None:
        return
    *edges, sigma = (float(values[step, run]) for values in boxes)
    scale = tile.height // height
    # Clipped first: a window may be as large as exp(30) images, and may lie outside.
    limits = (tile.width, tile.height, tile.width, tile.height)
    left, top, right, bottom = (round(min(max(x * scale, 0), limit)) for x, limit in zip(edges, limits, strict=True))
    if left < right and top < bottom:
        line = round(min(max(2 * sigma, 1), 4) * scale / 2)
        ImageDraw.Draw(tile).rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)


def _columns(count: int, width: int, height: int) -> int:
    """Columns for `count` cells of width x height that make a page about twice as wide as high and leave few gaps."""
    ideal = math.sqrt(2 * count * height / width)
    return min(range(1, count + 1), key=lambda columns: abs(math.log(columns / ideal)) + 2 * (-count % columns) / count)


def _rows(items: Sequence, columns: int) -> list[Sequence]:
    return [items[start : start + columns] for start in range(0, len(items), columns)]


def _progress(step: int, steps: int) -> str:
    # As long at the first step as at the last, so that nothing moves on the page.
    return f"step {step + 1:0{len(str(steps))}} of {steps}"


def _write_gif(pages: Sequence[Image.Image], path: Path) -> None:
    data = io.BytesIO()
    durations = [STEP_MS] * (len(pages) - 1) + [LAST_STEP_MS]
    first, *others = [page.quantize(dither=Image.Dither.NONE) for page in pages]
    first.save(data, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    write_atomically(path, data.getvalue())


def write_png(page: Image.Image, path: Path) -> None:
    """Write a page as PNG, whole or not at all."""
    data = io.BytesIO()
    page.save(data, "PNG", optimize=True)
    write_atomically(path, data.getvalue())
