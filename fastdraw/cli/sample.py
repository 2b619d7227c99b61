"""fastdraw sample"""

from collections.abc import Sequence
from pathlib import Path

from fastdraw.cli.arguments import Parser, count, device_argument, folder, run_argument, seed_argument

EXAMPLES = """examples:
  fastdraw sample runs/seqdraw --digits 157 --count 8 --out pictures
  fastdraw sample runs/aligndraw --caption "the digit 7 is at the top left of the image ."
  fastdraw sample runs/draw --count 40"""


def main(argv: Sequence[str]) -> None:
    """Draw images and write samples.png, strip.png, generation.gif, attention.png and the run's curves.png."""
    parser = Parser(
        prog="fastdraw sample",
        description="Draw images with a trained model: samples.png, strip.png, generation.gif and, where it attends\n"
        "to what it is told, attention.png; and how its loss fell: curves.png.",
        epilog=EXAMPLES,
    )
    run_argument(parser)
    parser.add_argument("--digits", help="what to draw, left to right, such as 157, for a model that is told digits")
    parser.add_argument("--caption", help="what to draw, words and dots apart, for a model that is told captions")
    parser.add_argument("--count", metavar="INT", type=count, default=8, help="images to draw (default: %(default)s)")
    seed_argument(parser)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=folder,
        help="folder for the pictures (default: RUN/samples/, in it one named after the digits or the caption)",
    )
    device_argument(parser)
    args = parser.parse_args(argv)

    from fastdraw.cli.drawing import draw_steps, wish_for
    from fastdraw.evaluation import attention_map, curves, generation_gif, generation_strip, sample_grid
    from fastdraw.training import Run, load_model

    model, settings = load_model(args.run, args.device)
    wish = wish_for(settings, args.run, args.digits, args.caption)
    drawing = draw_steps(model, wish.labels.expand(args.count, -1), args.seed)

    out: Path = args.out or args.run / "samples" / "-".join(wish.text.replace(".", "").split())
    out.mkdir(parents=True, exist_ok=True)
    captions = [wish.text] * args.count if wish.text else []
    sample_grid(drawing.frames[-1], captions, out / "samples.png")
    generation_strip(drawing.frames, out / "strip.png", captions=captions)
    generation_gif(
        drawing.frames,
        drawing.windows,
        settings.model.n_write,
        settings.model.stride,
        out / "generation.gif",
        captions,
    )
    frames, _, attention = drawing.first(1)
    if attention is not None:
        label = "digit" if args.digits is not None else "word"
        attention_map(attention, [wish.names], frames, out / "attention.png", label)
    rows = Run.open(args.run).metrics()
    if rows:  # none where a run was stopped before its first
        curves(rows, out / "curves.png")
    print(f"wrote the pictures to {out}")
