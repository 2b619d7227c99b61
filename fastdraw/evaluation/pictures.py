"""Pictures of drawn images: sample grids, generation strips, reconstructions, and the animated canvas.

Images are float tensors in [0, 1] with one channel (grey) or three (RGB). Every function writes one file, whole or not
at all.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

from fastdraw.evaluation.pages import CAPTION_HEIGHT, set_page, to_tile
from fastdraw.files import write_atomically
from fastdraw.reference.filterbank import window_geometry

TILE_HEIGHT = 96
GIF_TILE_HEIGHT = 128
STEP_MS, LAST_STEP_MS = 120, 2500
BOX = (230, 159, 0)  # orange, told from every grey by all kinds of colour vision


def sample_grid(images: Tensor, captions: Sequence[str], path: Path, columns: int = 10) -> None:
    """Write images (B, C, H, W) row by row, each under its caption, usually the digits that were asked for."""
    tiles = [to_tile(image, TILE_HEIGHT) for image in images]
    _write_png(set_page(_rows(tiles, columns), _rows(captions, columns)), path)


def generation_strip(frames: Tensor, path: Path, columns: int = 10, captions: Sequence[str] = ()) -> None:
    """Write frames (T, B, C, H, W) as one row per run, the canvas after uniformly spaced steps from left to right.

    Args:
        columns: steps to show; the last is always step T.
        captions: one on the left of each row.
    """
    steps = spaced_steps(len(frames), columns)
    rows = [[to_tile(frames[step - 1, run], TILE_HEIGHT) for step in steps] for run in range(frames.shape[1])]
    heads = [f"t = {step}" for step in steps]
    _write_png(set_page(rows, captions=[heads], labels=captions), path)


def reconstruction_grid(originals: Tensor, reconstructions: Tensor, path: Path) -> None:
    """Write originals (B, C, H, W), each above its reconstruction of the same shape."""
    above, below = ([to_tile(image, TILE_HEIGHT) for image in images] for images in (originals, reconstructions))
    columns = _columns(len(above), above[0].width, 2 * above[0].height)
    pairs = zip(_rows(above, columns), _rows(below, columns), strict=True)
    rows = [row for pair in pairs for row in pair]
    _write_png(set_page(rows, labels=["data", "model"] * (len(rows) // 2)), path)


def generation_gif(
    frames: Tensor, write_windows: Tensor, n: int, stride: str, path: Path, captions: Sequence[str] = ()
) -> None:
    """Write an animation of the canvases, with the part that each step writes to in an orange box.

    The box covers the n x n grid of filters and half a spacing around it, clipped to the canvas; its line is as thick
    as two standard deviations of a filter, within 1 to 4 canvas pixels.

    Args:
        frames (T, B, C, H, W): the canvas after each step.
        write_windows (T, B, 5): as they leave the linear layer.
        n: side of the written patch.
        stride: "max" or "per_axis", as in `gaussian_filterbank`.
        captions: one above each canvas.
    """
    steps, batch, _, height, width = frames.shape
    at = window_geometry(write_windows.detach().float().cpu(), n, (height, width), stride=stride)
    half_x, half_y = n / 2 * at.delta_x, n / 2 * at.delta_y
    # A pixel's colour fills the square around its coordinate: pixel 0 reaches from -0.5 to 0.5.
    edges = [at.gx - half_x + 0.5, at.gy - half_y + 0.5, at.gx + half_x + 0.5, at.gy + half_y + 0.5]

    pages = []
    for step in range(steps):
        tiles = [to_tile(frame, GIF_TILE_HEIGHT) for frame in frames[step]]
        for run, tile in enumerate(tiles):
            box = [float(edge[step, run]) for edge in edges]
            _draw_box(tile, box, float(at.sigma[step, run]), tile.height // height)
        columns = _columns(batch, tiles[0].width, tiles[0].height + CAPTION_HEIGHT)
        page = set_page(_rows(tiles, columns), _rows(captions, columns), footer=f"step {step + 1} of {steps}")
        pages.append(page.quantize(dither=Image.Dither.NONE))

    data = io.BytesIO()
    durations = [STEP_MS] * (steps - 1) + [LAST_STEP_MS]
    pages[0].save(data, "GIF", save_all=True, append_images=pages[1:], duration=durations, loop=0)
    write_atomically(path, data.getvalue())


def spaced_steps(steps: int, count: int) -> list[int]:
    """At most `count` of the steps 1..steps, uniformly spaced and ending with the last."""
    count = min(count, steps)
    return [math.ceil(steps * (k + 1) / count) for k in range(count)]


def _draw_box(tile: Image.Image, box: Sequence[float], sigma: float, scale: int) -> None:
    # Clipped first: a window may be as large as exp(30) images, and may lie outside.
    limits = (tile.width, tile.height, tile.width, tile.height)
    left, top, right, bottom = (round(min(max(x * scale, 0), limit)) for x, limit in zip(box, limits, strict=True))
    if left < right and top < bottom:
        line = round(min(max(2 * sigma, 1), 4) * scale / 2)
        ImageDraw.Draw(tile).rectangle((left, top, right - 1, bottom - 1), outline=BOX, width=line)


def _columns(count: int, width: int, height: int) -> int:
    """Columns for `count` cells of width x height that make a page about twice as wide as high and leave few gaps."""
    ideal = math.sqrt(2 * count * height / width)
    return min(range(1, count + 1), key=lambda columns: abs(math.log(columns / ideal)) + 2 * (-count % columns) / count)


def _rows(items: Sequence, columns: int) -> list[Sequence]:
    return [items[start : start + columns] for start in range(0, len(items), columns)]


def _write_png(page: Image.Image, path: Path) -> None:
    data = io.BytesIO()
    page.save(data, "PNG", optimize=True)
    write_atomically(path, data.getvalue())
