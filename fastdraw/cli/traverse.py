"""fastdraw traverse"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdraw.cli.arguments import (
    Parser,
    UsageError,
    count,
    device_argument,
    folder,
    root_argument,
    run_argument,
    within,
)
from fastdraw.cli.images import check_own_images, held_out, own_images, own_images_arguments

if TYPE_CHECKING:
    from torch import Tensor

    from fastdraw.evaluation.latent import Dimension
    from fastdraw.models import Model
    from fastdraw.training import Settings

RANKED_BY = 500  # test images
DESCRIPTION = """Decode codes in which one number takes one value after the other: traversal.png.

A code of one number is shown as a sheet of 100 images, z from -5 to 5; a code of two as a plane of 20 x 20; of a longer
code the numbers that say most of test images, one row each, from -3 to 3 around the code of an image. They are those
with the most KL for a VAE, and for DRAW those that vary most over images, at any of its steps."""


def main(argv: Sequence[str]) -> None:
    """Write images of codes that differ in one number to traversal.png."""
    parser = Parser(
        prog="fastdraw traverse",
        description=DESCRIPTION,
        epilog="examples:\n  fastdraw traverse runs/vae\n  fastdraw traverse runs/vae --around 7 --dimensions 3 17\n"
        "  fastdraw traverse runs/draw --dimensions 0:5 4:5",
    )
    run_argument(parser)
    parser.add_argument(
        "--around",
        metavar="INT",
        type=within(0, 2**31 - 1),
        help="the test image whose code is changed (default: 0)",
    )
    parser.add_argument(
        "--zero", action="store_true", help="change the code 0, the prior's mean, in place of an image's"
    )
    own_images_arguments(parser)
    parser.add_argument(
        "--dimensions",
        metavar="NUMBER",
        nargs="+",
        type=dimension,
        help="numbers of the code, from 0; for DRAW STEP:NUMBER, both from 0",
    )
    parser.add_argument(
        "--count",
        metavar="INT",
        type=count,
        default=10,
        help="rows at most, without --dimensions (default: %(default)s)",
    )
    parser.add_argument("--steps", metavar="INT", type=within(2, 1000), help="values (default: 100, 20 x 20, or 9)")
    parser.add_argument("--reach", metavar="FLOAT", type=reach, help="the largest value (default: 5, 5, or 3)")
    parser.add_argument("--out", metavar="DIR", type=folder, help="folder for the picture (default: RUN)")
    root_argument(parser)
    device_argument(parser)
    args = parser.parse_args(argv)
    _check(args)

    import torch

    from fastdraw.evaluation import traversal_grid, traversal_line, traversal_plane, traverse, traverse_plane
    from fastdraw.training import load_model

    model, settings = load_model(args.run, args.device)
    code, labels, lengths = _code(args, model, settings)
    numbers = code.numel() if args.dimensions is None else 0
    steps, most = {1: (100, 5.0), 2: (20, 5.0)}.get(numbers, (9, 3.0))
    values = torch.linspace(-(args.reach or most), args.reach or most, args.steps or steps)
    every = [divmod(place, code.shape[2]) for place in range(numbers)] if numbers <= 2 else []
    if len(every) == 2:
        images = traverse_plane(model, code, every[0], every[1], values, labels, lengths)
    else:
        rows = every or args.dimensions or _telling(args, model, settings)
        images = traverse(model, code, rows, values, labels, lengths)

    out: Path = args.out or args.run
    out.mkdir(parents=True, exist_ok=True)
    path = out / "traversal.png"
    if len(every) == 2:
        traversal_plane(images, values.tolist(), path)
    elif len(every) == 1:
        traversal_line(images[0], values.tolist(), path)
    else:
        names = [f"step {step}, z {number}" if len(code) > 1 else f"z {number}" for step, number in rows]
        traversal_grid(images, values.tolist(), names, [code[step, 0, number].item() for step, number in rows], path)
    print(f"wrote {path}")


def dimension(text: str) -> "Dimension":
    """Parse NUMBER, or STEP:NUMBER."""
    step, colon, number = text.rpartition(":")
    if not number.isdecimal() or (colon and not step.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be a number from 0 such as 3, or STEP:NUMBER such as 2:3, got {text!r}")
    return int(step or 0), int(number)


def reach(text: str) -> float:
    """Parse a finite number above 0."""
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"must lie above 0 and below 1e6, got {text}")
    return number


def _check(args: argparse.Namespace) -> None:
    """Refuse a code that is to be changed and another one beside it, and what is said of no image."""
    if not args.zero:
        check_own_images(args)
    elif args.images is not None or args.around is not None:
        other = "--around" if args.images is None else "--images"
        raise UsageError(f"--zero takes the place of an image: leave out {other}")
    elif args.invert:
        raise UsageError("--invert says something of --images, and --zero takes their place")
    elif args.digits is not None and len(args.digits) > 1:
        raise UsageError(f"--digits must be one number for the code 0, got {len(args.digits)}")


def _code(args: argparse.Namespace, model: "Model", settings: "Settings") -> "tuple[Tensor, Tensor, Tensor]":
    """The code (T, 1, Z) to change, and the labels (1, L) and the length (1,) that it is decoded with."""
    import torch

    from fastdraw.cli.drawing import wish_for
    from fastdraw.evaluation import embed

    if args.zero:
        (digits,) = args.digits or [None]
        labels = wish_for(settings, args.run, digits, args.caption).labels[None]
        return model.noise(1, labels.shape[1]).zero_().cpu(), labels, torch.tensor([labels.shape[1]])
    if args.images is None:
        batch = held_out(args, settings, [args.around or 0])
    else:
        batch, _ = own_images(args, settings)
        if len(batch.image) > 1:
            raise UsageError(f"--images must be one, whose code is changed, got {len(batch.image)}")
    return embed(model, batch), batch.labels, batch.lengths


def _telling(args: argparse.Namespace, model: "Model", settings: "Settings") -> "list[Dimension]":
    """The numbers of a code that say most of test images."""
    from fastdraw.evaluation import code_variance, embed, kl_by_dimension, largest_dimensions
    from fastdraw.models import Vae
    from fastdraw.training import held_out_images

    batch = held_out_images(settings.at(args.root), settings.data.longest, RANKED_BY)
    told = kl_by_dimension(model, [batch])[None] if isinstance(model, Vae) else code_variance(embed(model, batch))
    return largest_dimensions(told, args.count)
