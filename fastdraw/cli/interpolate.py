"""fastdraw interpolate"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdraw.cli.arguments import (
    Parser,
    UsageError,
    device_argument,
    folder,
    root_argument,
    run_argument,
    within,
)
from fastdraw.cli.images import check_own_images, held_out, own_images, own_images_arguments

if TYPE_CHECKING:
    import argparse

    from fastdraw.data import Batch
    from fastdraw.training import Settings

FRAMES = 16  # of the animation, one way
EPILOG = """examples:
  fastdraw interpolate runs/vae --count 6
  fastdraw interpolate runs/vae --between 3 8
  fastdraw interpolate runs/vae --images mine.png other.png"""


def main(argv: Sequence[str]) -> None:
    """Write the ways between images to interpolation.png and interpolation.gif."""
    parser = Parser(
        prog="fastdraw interpolate",
        description="Encode images in pairs and decode codes on the way between the two: interpolation.png, with the\n"
        "images themselves in the first and the last column, and interpolation.gif. Images in between have the labels\n"
        "of the nearer end.",
        epilog=EPILOG,
    )
    run_argument(parser)
    parser.add_argument(
        "--between", metavar="INT", nargs="+", type=within(0, 2**31 - 1), help="test images in pairs, by number from 0"
    )
    own_images_arguments(parser)
    parser.add_argument(
        "--steps", metavar="INT", type=within(2, 1000), default=9, help="images in a row (default: %(default)s)"
    )
    parser.add_argument(
        "--count",
        metavar="INT",
        type=within(1, 1000),
        default=4,
        help="rows at most, without --between: of test images 0 and 1, 2 and 3, .. (default: %(default)s)",
    )
    parser.add_argument("--line", action="store_true", help="take a line between two codes in place of an arc around 0")
    parser.add_argument("--out", metavar="DIR", type=folder, help="folder for both (default: RUN)")
    root_argument(parser)
    device_argument(parser)
    args = parser.parse_args(argv)
    check_own_images(args)
    if args.between is not None and (args.images is not None or len(args.between) % 2):
        raise UsageError("--between takes test images in pairs, and no --images beside them")

    from fastdraw.data import Batch
    from fastdraw.evaluation import interpolate, interpolation_gif, interpolation_grid
    from fastdraw.training import load_model

    model, settings = load_model(args.run, args.device)
    batch = _images(args, settings)
    first, last = (Batch(*(tensor[side::2] for tensor in batch)) for side in (0, 1))
    ways = [interpolate(model, first, last, steps, args.line) for steps in (args.steps, FRAMES)]

    out: Path = args.out or args.run
    out.mkdir(parents=True, exist_ok=True)
    interpolation_grid(first.image, ways[0], last.image, out / "interpolation.png")
    interpolation_gif(first.image, ways[1], last.image, out / "interpolation.gif")
    print(f"wrote interpolation.png and interpolation.gif to {out}")


def _images(args: "argparse.Namespace", settings: "Settings") -> "Batch":
    """An even number of images: those of the first pair, of the second, .."""
    from fastdraw.data import Batch

    if args.images is None:
        batch = held_out(args, settings, args.between or 2 * args.count)
    else:
        batch, _ = own_images(args, settings, 2 * args.count)
    if len(batch.image) < 2:
        given = "the test split" if args.images is None else "--images"
        raise UsageError(f"{given} must hold at least two images to go from one to another, got 1")
    return Batch(*(tensor[: len(batch.image) // 2 * 2] for tensor in batch))
