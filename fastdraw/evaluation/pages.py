"""Pages: image tiles in rows, with captions. All pictures of samples are set with these."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

GAP = 8
MARGIN = 16
TEXT_SIZE = 16
CAPTION_HEIGHT = 24
INK = (34, 34, 34)
PAPER = (255, 255, 255)


def to_tile(image: Tensor, height: int) -> Image.Image:
    """Image (C, H, W) in [0, 1], C = 1 or 3, as RGB, enlarged by the whole factor that brings H nearest to height."""
    pixels = (image.detach().float().clamp(0, 1) * 255).round().byte().expand(3, -1, -1)
    tile = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    scale = max(1, round(height / tile.height))
    return tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)


def set_page(
    rows: Sequence[Sequence[Image.Image]],
    captions: Sequence[Sequence[str]] = (),
    labels: Sequence[str] = (),
    footer: str = "",
) -> Image.Image:
    """Set tiles of one size in rows on white paper.

    Args:
        rows: the tiles; a row may be shorter than the first.
        captions: one above each tile; a row of empty captions, or none, takes no room for them.
        labels: one on the left of each row.
        footer: a line at the bottom left.
    """
    font = ImageFont.load_default(TEXT_SIZE)
    width, height = rows[0][0].size
    label_width = max((round(font.getlength(label)) + GAP for label in labels), default=0)
    heads = [CAPTION_HEIGHT * any(captions[row]) if row < len(captions) else 0 for row in range(len(rows))]
    page = Image.new(
        "RGB",
        (
            2 * MARGIN + label_width + len(rows[0]) * (width + GAP) - GAP,
            2 * MARGIN + sum(heads) + len(rows) * (height + GAP) - GAP + CAPTION_HEIGHT * bool(footer),
        ),
        PAPER,
    )
    draw = ImageDraw.Draw(page)
    top = MARGIN
    for row, tiles in enumerate(rows):
        top += heads[row]
        for column, tile in enumerate(tiles):
            left = MARGIN + label_width + column * (width + GAP)
            page.paste(tile, (left, top))
            if heads[row]:
                draw.text((left + width / 2, top - 5), captions[row][column], INK, font, anchor="ms")
        if labels:
            draw.text((MARGIN + label_width - GAP, top + height / 2), labels[row], INK, font, anchor="rm")
        top += height + GAP
    draw.text((MARGIN, page.height - MARGIN), footer, INK, font, anchor="ls")
    return page
