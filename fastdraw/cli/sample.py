"""fastdraw sample"""

from collections.abc import Sequence
from pathlib import Path

from fastdraw.cli.arguments import Parser, count, device_argument, folder, run_argument, seed_argument


def main(argv: Sequence[str]) -> None:
    """Draw digits and write samples.png, strip.png, generation.gif, attention.png and the run's curves.png."""
    parser = Parser(
        prog="fastdraw sample",
        description="Draw digits with a trained model: samples.png, strip.png, generation.gif and attention.png;\n"
        "and how its loss fell: curves.png.",
        epilog="example:\n  fastdraw sample runs/seqdraw --digits 157 --count 8 --out pictures",
    )
    run_argument(parser)
    parser.add_argument("--digits", required=True, help="what to draw, left to right, such as 157")
    parser.add_argument("--count", metavar="INT", type=count, default=8, help="images to draw (default: %(default)s)")
    seed_argument(parser)
    parser.add_argument(
        "--out", metavar="DIR", type=folder, help="folder for the pictures (default: RUN/samples/DIGITS)"
    )
    device_argument(parser)
    args = parser.parse_args(argv)

    import torch

    from fastdraw.cli.drawing import digits_for, draw_steps
    from fastdraw.evaluation import attention_map, curves, generation_gif, generation_strip, sample_grid
    from fastdraw.training import Run, load_model

    model, settings = load_model(args.run, args.device)
    asked = digits_for(settings, args.run, args.digits)
    digits = torch.tensor(asked).expand(args.count, -1)
    drawing = draw_steps(model, digits, args.seed)

    out: Path = args.out or args.run / "samples" / args.digits
    out.mkdir(parents=True, exist_ok=True)
    captions = [args.digits] * args.count
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
        attention_map(attention, digits[:1], frames, out / "attention.png")
    rows = Run.open(args.run).metrics()
    if rows:  # none where a run was stopped before its first
        curves(rows, out / "curves.png")
    print(f"wrote the pictures to {out}")
