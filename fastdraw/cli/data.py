"""fastdraw data"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdraw.cli.arguments import Parser, UsageError, count, folder

if TYPE_CHECKING:
    import argparse

    from torch import Tensor

SEED = 0
EPILOG = """examples:
  fastdraw data --out mnist.png
  fastdraw data --source captions --count 10 --out captions.png
  fastdraw data --source svhn --root svhn --out svhn.png
  fastdraw data --source folder --root photos --channels 3 --size 64 64 --out photos.png"""
HOLDS = {"svhn": "train/ and test/ of SVHN format 1", "celeba": "CelebA's img_align_celeba/", "folder": "images"}


def main(argv: Sequence[str]) -> None:
    """Show what a model is trained on: images of every length, as they are prepared, each under its labels."""
    parser = Parser(
        prog="fastdraw data",
        description="Show what a model is trained on: images of every length, as they are prepared, each under its\n"
        "digits or its caption, where it has any, on one sheet (PNG).",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--source",
        choices=("mnist", "svhn", "digits", "binarised", "captions", "celeba", "folder"),
        default="mnist",
        help="MNIST digits in a row, house numbers, single MNIST digits, these binarised, MNIST with captions, faces, "
        "or a folder of images (default: %(default)s)",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=folder,
        help="folder that holds MNIST/raw/, SVHN's train/ and test/, img_align_celeba/, or images "
        "(default: the MNIST digits in this package)",
    )
    parser.add_argument("--download", action="store_true", help="fetch what is missing into --root")
    parser.add_argument(
        "--split",
        choices=("train", "test", "extra", "valid"),
        default="train",
        help="SVHN alone has an extra, CelebA a valid split (default: %(default)s)",
    )
    parser.add_argument(
        "--align",
        choices=("right", "slots", "goodfellow"),
        default="right",
        help="how SVHN's digits stand on the canvas (default: %(default)s)",
    )
    parser.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        default=1,
        help="SVHN, faces and a folder of images in grey or in colour (default: %(default)s)",
    )
    parser.add_argument(
        "--size",
        metavar=("H", "W"),
        type=count,
        nargs=2,
        default=(128, 128),
        help="of faces and a folder of images, in pixels (default: 128 128)",
    )
    parser.add_argument(
        "--count", metavar="INT", type=count, default=20, help="images of each length (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the PNG file to write")
    args = parser.parse_args(argv)
    if args.source in HOLDS and args.root is None:
        raise UsageError(f"--source {args.source} needs --root DIR, a folder that holds {HOLDS[args.source]}")
    if args.source == "folder" and args.download:
        raise UsageError("--download cannot fetch a folder of images: put them there, and leave it out")
    args.size = tuple(args.size)

    import torch

    from fastdraw.evaluation import sample_grid

    images, captions = [], []
    for image, labels, lengths in _of_each_length(args):
        images.append(image)
        rows = (row[:length] for row, length in zip(labels, lengths, strict=True))
        captions += [_caption(args.source, row) for row in rows]
    sample_grid(torch.cat(images), captions, args.out)
    print(f"wrote {args.out}")


def _caption(source: str, labels: "Tensor") -> str:
    from fastdraw.data.captions import decode

    if source == "captions":
        return decode(labels)
    return "" if source in ("celeba", "folder") else "".join(map(str, labels.tolist()))


def _of_each_length(args: "argparse.Namespace") -> Iterator[tuple["Tensor", "Tensor", "Tensor"]]:
    """Images (B, C, H, W) in [0, 1], labels (B, L) and lengths (B,), a batch for every length that there is."""
    from fastdraw.data import (
        Captions,
        EpochStream,
        ImageStream,
        MultiDigits,
        load_cells,
        load_faces,
        load_image_folder,
        load_mnist_images,
    )
    from fastdraw.data.svhn import load_svhn

    if args.source == "mnist":
        cells = load_cells(args.root, args.split, args.download)
        for length in range(1, 5):
            yield MultiDigits(cells, [float(length == other) for other in range(1, 5)], args.count, SEED).batch(0)
        return
    if args.source != "svhn":
        if args.source == "celeba":
            images = load_faces(args.root, args.split, args.size, args.channels, args.download)
        elif args.source == "folder":
            images = load_image_folder(args.root, args.split, args.size, args.channels)
        else:
            images = load_mnist_images(args.root, args.split, args.download)
        if args.source == "captions":
            yield Captions(images, args.count, SEED).batch(0)
        elif args.source == "binarised":
            yield ImageStream(images, (1,), args.count, SEED, binarise=True).batch(0)
        else:
            yield EpochStream(images, min(args.count, len(images)), SEED).batch(0)
        return
    svhn = load_svhn(args.root, args.split, align=args.align, channels=args.channels, download=args.download)
    for length in svhn.lengths.unique():
        chosen = (svhn.lengths == length).nonzero()[: args.count, 0]
        yield svhn.images[chosen].float() / 255, svhn.labels[chosen], svhn.lengths[chosen]
