"""fastdraw figures"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdraw.cli.arguments import (
    Parser,
    count,
    device_argument,
    folder,
    root_argument,
    run_argument,
    seed_argument,
)
from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    from fastdraw.cli.drawing import Drawing
    from fastdraw.models import DrawConfig

ANIMATED = 4
TEST_IMAGES = 1000
DESCRIPTION = """Make the figures of the seqDRAW paper with a trained model, and measure what it claims about them:

  strip-DIGITS.png       Figures 3 to 6: a run in each row, the canvas after uniformly spaced steps
  attention-DIGITS.png   Figure 1: one drawing over its attention to the digits, where the model attends to them
  attention.png          the attention to the digits, averaged over all runs
  generation-DIGITS.gif  drawings from the prior, with the write window
  reconstruction.gif     test images being redrawn, with the read and the write window
  claims.json            the order in which digits emerge, and how far style is kept within a run, for all DIGITS of two
                         places or more; and the style of as long test images"""


def main(argv: Sequence[str]) -> None:
    """Write the strips, attention maps and animations of chosen digits, and claims.json."""
    parser = Parser(
        prog="fastdraw figures",
        description=DESCRIPTION,
        epilog="examples:\n  fastdraw figures runs/seqdraw-cur\n  fastdraw figures runs/rnndraw --digits 334",
    )
    run_argument(parser)
    parser.add_argument(
        "--digits", nargs="+", default=["7", "68", "157"], help="what to draw, left to right (default: 7 68 157)"
    )
    parser.add_argument("--rows", metavar="INT", type=count, default=6, help="runs to show (default: %(default)s)")
    parser.add_argument("--runs", metavar="INT", type=count, default=200, help="runs to measure (default: %(default)s)")
    seed_argument(parser)
    parser.add_argument("--out", metavar="DIR", type=folder, help="folder for the figures (default: RUN/figures)")
    root_argument(parser)
    device_argument(parser)
    args = parser.parse_args(argv)
    if args.runs < 2:
        raise FastdrawError(f"--runs must be at least 2, which an interval takes, got {args.runs}")

    import torch

    from fastdraw.cli.drawing import digits_for, draw_steps, redraw_steps
    from fastdraw.data.multidigits import SLOTS
    from fastdraw.evaluation import drawing_claims, image_claims, mean_attention, reconstruction_gif
    from fastdraw.files import write_atomically
    from fastdraw.training import held_out_images, load_draw

    model, settings = load_draw(args.run, args.device)
    config, data, here = model.config, settings.data, settings.at(args.root)
    if data.source not in ("mnist", "svhn") or config.labels == "none":
        raise FastdrawError(f"the model of {args.run} is told no numbers: see its drawings with fastdraw sample")
    slot_width = config.width // SLOTS
    sequences = {text: digits_for(settings, args.run, text) for text in args.digits}
    image, labels, lengths = held_out_images(here, data.longest, ANIMATED)
    tests = {}
    for length in sorted({len(digits) for digits in sequences.values()} - {1}):
        images, digits, _ = held_out_images(here, length, TEST_IMAGES)
        tests[length] = image_claims(images, digits, slot_width)

    out: Path = args.out or args.run / "figures"
    out.mkdir(parents=True, exist_ok=True)
    frames, read, write = redraw_steps(model, image, labels, lengths, args.seed)
    sides = config.n_read, config.n_write
    reconstruction_gif(image, frames, read, write, sides, config.stride, out / "reconstruction.gif")

    start = model.canvas0.detach().sigmoid().cpu()
    claims, attentions = {}, {}
    for text, sequence in sequences.items():
        asked = torch.tensor(sequence).expand(args.runs, -1)
        drawing = draw_steps(model, asked, args.seed)
        _write_figures(drawing, text, args.rows, config, out)
        if drawing.attention is not None:
            attentions[text] = drawing.attention
        if len(sequence) > 1:
            claims[text] = drawing_claims(drawing.frames, start, drawing.attention, asked, slot_width)
    if attentions:
        mean_attention(attentions, out / "attention.png")

    report = {"drawings": claims, "data": tests, "seed": args.seed, "settings": settings.model_dump(mode="json")}
    write_atomically(out / "claims.json", (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    print(f"wrote the figures and claims.json to {out}")


def _write_figures(drawing: "Drawing", text: str, rows: int, config: "DrawConfig", out: Path) -> None:
    from fastdraw.evaluation import attention_map, generation_gif, generation_strip

    generation_strip(drawing.first(rows).frames, out / f"strip-{text}.png", captions=[text] * rows)
    frames, windows, _ = drawing.first(ANIMATED)
    path = out / f"generation-{text}.gif"
    generation_gif(frames, windows, config.n_write, config.stride, path, [text] * ANIMATED)
    frames, _, attention = drawing.first(1)
    if attention is not None:
        attention_map(attention, [text], frames, out / f"attention-{text}.png")
