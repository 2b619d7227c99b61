"""fastdraw sample"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdraw.cli.arguments import Parser, count, device_argument, folder, run_argument, seed_argument

if TYPE_CHECKING:
    from torch import Tensor

    from fastdraw.cli.drawing import Wish
    from fastdraw.models import Draw

EXAMPLES = """examples:
  fastdraw sample runs/seqdraw --digits 157 --count 8 --out pictures
  fastdraw sample runs/aligndraw --caption "the digit 7 is at the top left of the image ."
  fastdraw sample runs/vae --count 40"""


def main(argv: Sequence[str]) -> None:
    """Draw images and write them, the steps or stages that lead to them, and the run's curves."""
    parser = Parser(
        prog="fastdraw sample",
        description="Draw images with a trained model: samples.png; of DRAW how they came about: strip.png,\n"
        "generation.gif and, where it attends to what it is told, attention.png; of a VAE with several stages what\n"
        "each made of them: stages.png; and how the loss fell: curves.png.",
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

    import torch

    from fastdraw.cli.drawing import wish_for
    from fastdraw.evaluation import curves, decode_stages, sample_grid, stage_grid
    from fastdraw.models import Draw
    from fastdraw.training import Run, load_model

    model, settings = load_model(args.run, args.device)
    wish = wish_for(settings, args.run, args.digits, args.caption)
    out: Path = args.out or args.run / "samples" / "-".join(wish.text.replace(".", "").split())
    out.mkdir(parents=True, exist_ok=True)
    labels = wish.labels.expand(args.count, -1)
    if isinstance(model, Draw):
        _draw_steps(model, labels, wish, args.seed, out)
    else:
        stages = decode_stages(model, model.noise(args.count, generator=torch.Generator().manual_seed(args.seed)))
        sample_grid(stages[-1], [], out / "samples.png")
        if len(stages) > 1:
            stage_grid(None, stages, out / "stages.png")
    rows = Run(args.run).metrics()
    if rows:  # none where a run was stopped before its first, or its model was exported
        curves(rows, out / "curves.png")
    print(f"wrote the pictures to {out}")


def _draw_steps(model: "Draw", labels: "Tensor", wish: "Wish", seed: int, out: Path) -> None:
    """Draw labels (B, L) and show every step."""
    from fastdraw.cli.drawing import draw_steps
    from fastdraw.evaluation import attention_map, generation_gif, generation_strip, sample_grid

    drawing = draw_steps(model, labels, seed)
    captions = [wish.text] * len(labels) if wish.text else []
    sample_grid(drawing.frames[-1], captions, out / "samples.png")
    generation_strip(drawing.frames, out / "strip.png", captions=captions)
    config = model.config
    generation_gif(drawing.frames, drawing.windows, config.n_write, config.stride, out / "generation.gif", captions)
    frames, _, attention = drawing.first(1)
    if attention is not None:
        label = "digit" if len(wish.names) == len(wish.text) else "word"
        attention_map(attention, [wish.names], frames, out / "attention.png", label)
