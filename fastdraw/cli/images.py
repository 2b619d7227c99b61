"""The images that reconstruct, interpolate, embed and traverse work on: test images, or a user's own."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastdraw.cli.arguments import Parser, UsageError, path

if TYPE_CHECKING:
    from fastdraw.data import Batch
    from fastdraw.training import Settings


def own_images_arguments(parser: Parser) -> None:
    """Add the user's own images, and what a model has to be told of them."""
    parser.add_argument(
        "--images",
        metavar="PATH",
        nargs="+",
        type=path,
        help="your own images, files or folders of files, in place of test images",
    )
    parser.add_argument(
        "--invert", action="store_true", help="exchange dark and light in --images, as for digits in ink on white paper"
    )
    parser.add_argument(
        "--digits", nargs="+", help="of --images, one number for all or one for each, for a model that is told digits"
    )
    parser.add_argument("--caption", help="of --images, one for all, for a model that is told captions")


def check_own_images(args: argparse.Namespace) -> None:
    """Refuse what is said of the user's own images where there are none.

    Raises:
        UsageError: --digits, --caption or --invert without --images.
    """
    for name in ("digits", "caption", "invert"):
        if getattr(args, name) and args.images is None:
            raise UsageError(f"--{name} says something of --images, and there are none: test images have their labels")


def own_images(args: argparse.Namespace, settings: "Settings", count: int | None = None) -> "tuple[Batch, list[str]]":
    """Read at most `count` of --images in the size and the colours of a run's model; and the names of their files.

    Raises:
        FastdrawError: an image cannot be read, or the model is told something else, or numbers of several lengths.
    """
    import torch

    from fastdraw.cli.drawing import wish_for
    from fastdraw.data import Batch
    from fastdraw.data.folders import image_files, read_images

    model = settings.model
    paths = image_files(args.images)[:count]
    pixels = read_images(paths, (model.height, model.width), model.channels)
    image = (255 - pixels if args.invert else pixels) / 255
    wishes = [wish_for(settings, args.run, digits, args.caption).labels for digits in args.digits or [None]]
    if len(wishes) not in (1, len(paths)):
        raise UsageError(f"--digits must be one number for all {len(paths)} images or one for each, got {len(wishes)}")
    if len({len(labels) for labels in wishes}) > 1:
        raise UsageError("--digits must be numbers of one length, as only these have codes of one length")
    labels = torch.stack(wishes).expand(len(paths), -1)
    return Batch(image, labels, torch.full((len(paths),), labels.shape[1])), [path.name for path in paths]


def held_out(args: argparse.Namespace, settings: "Settings", numbers: Sequence[int] | int) -> "Batch":
    """Test images as of `held_out_at`, with as many labels as the longest that the run was trained on."""
    from fastdraw.training import held_out_at

    return held_out_at(settings.at(args.root), settings.data.longest, numbers)
