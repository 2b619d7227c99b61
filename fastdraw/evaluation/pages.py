"""Pages: image tiles in rows, with captions. All pictures of samples are set with these."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Colour = tuple[int, int, int]
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

GAP = 8
MARGIN = 16
TEXT_SIZE = 16
CAPTION_HEIGHT = 24
LINE_HEIGHT = 19
SWATCH = 11
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
    legend: Mapping[str, Colour] | None = None,
) -> Image.Image:
    """Set tiles of one size in rows on white paper, which is wide enough for the bottom line too.

    Args:
        rows: the tiles; a row may be shorter than the first.
        captions: one above each tile, in several lines where it is wider than the tile; a row of empty captions, or
            none, takes no room for them.
        labels: one on the left of each row, broken into lines like a caption.
        footer: at the bottom left.
        legend: on the right of the footer, what the box of each colour is.
    """
    font = ImageFont.load_default(TEXT_SIZE)
    width, height = rows[0][0].size
    heads_of_tiles = [[_lines(caption, font, width) for caption in row] for row in captions]
    sides = [_lines(label, font, width) for label in labels]
    label_width = max((round(font.getlength(line)) + GAP for lines in sides for line in lines), default=0)
    most = [max((len(lines) for lines in row), default=0) for row in heads_of_tiles] + [0] * len(rows)
    heads = [CAPTION_HEIGHT + LINE_HEIGHT * (count - 1) if count else 0 for count in most[: len(rows)]]
    legend = legend or {}
    texts = [round(font.getlength(text)) for text in (footer, *legend)]
    body_width = label_width + len(rows[0]) * (width + GAP) - GAP
    bottom_width = sum(texts) + len(legend) * (2 * MARGIN + SWATCH + GAP)
    body_height = sum(heads) + len(rows) * (height + GAP) - GAP
    bottom_height = CAPTION_HEIGHT * (bottom_width > 0)
    page = Image.new(
        "RGB", (2 * MARGIN + max(body_width, bottom_width), 2 * MARGIN + body_height + bottom_height), PAPER
    )
    draw = ImageDraw.Draw(page)
    top = MARGIN
    for row, tiles in enumerate(rows):
        top += heads[row]
        for column, tile in enumerate(tiles):
            left = MARGIN + label_width + column * (width + GAP)
            page.paste(tile, (left, top))
            if heads[row]:
                for above, line in enumerate(reversed(heads_of_tiles[row][column])):
                    draw.text((left + width / 2, top - 5 - LINE_HEIGHT * above), line, INK, font, anchor="ms")
        if labels:
            for below, line in enumerate(sides[row]):
                middle = top + height / 2 + LINE_HEIGHT * (below - (len(sides[row]) - 1) / 2)
                draw.text((MARGIN + label_width - GAP, middle), line, INK, font, anchor="rm")
        top += height + GAP
    baseline = page.height - MARGIN
    draw.text((MARGIN, baseline), footer, INK, font, anchor="ls")
    left = MARGIN + texts[0]
    for (text, colour), length in zip(legend.items(), texts[1:], strict=True):
        left += 2 * MARGIN
        draw.rectangle((left, baseline - SWATCH, left + SWATCH - 1, baseline - 1), outline=colour, width=3)
        left += SWATCH + GAP
        draw.text((left, baseline), text, INK, font, anchor="ls")
        left += length
    return page


def _lines(text: str, font: Font, width: int) -> list[str]:
    """Break a text between words into lines of at most `width` dots, where its words allow it; no text is no line."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
