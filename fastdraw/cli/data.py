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
  fastdraw data --source svhn --root svhn --out svhn.png"""


def main(argv: Sequence[str]) -> None:
    """Show what a model is trained on: images of every length, as they are prepared, each under its labels."""
    parser = Parser(
        prog="fastdraw data",
        description="Show what a model is trained on: images of every length, as they are prepared, each under its\n"
        "digits or its caption, on one sheet (PNG).",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--source",
        choices=("mnist", "svhn", "binarised", "captions"),
        default="mnist",
        help="MNIST digits in a row, house numbers, binarised MNIST, or MNIST with captions (default: %(default)s)",
    )
    parser.add_argument(
        "--root",
        metavar="DIR",
        type=folder,
        help="folder that holds MNIST/raw/, or SVHN's train/ and test/ (default: the MNIST digits in this package)",
    )
    parser.add_argument("--download", action="store_true", help="fetch what is missing into --root")
    parser.add_argument("--split", choices=("train", "test", "extra"), default="train", help="(default: %(default)s)")
    parser.add_argument(
        "--align",
        choices=("right", "slots", "goodfellow"),
        default="right",
        help="how SVHN's digits stand on the canvas (default: %(default)s)",
    )
    parser.add_argument(
        "--channels", type=int, choices=(1, 3), default=1, help="SVHN in grey or in colour (default: %(default)s)"
    )
    parser.add_argument(
        "--count", metavar="INT", type=count, default=20, help="images of each length (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the PNG file to write")
    args = parser.parse_args(argv)
    if args.source == "svhn" and args.root is None:
        raise UsageError("--source svhn needs --root DIR, a folder that holds train/ and test/ of SVHN format 1")

    import torch

    from fastdraw.data.captions import decode
    from fastdraw.evaluation import sample_grid

    images, captions = [], []
    for image, labels, lengths in _of_each_length(args):
        images.append(image)
        rows = (row[:length] for row, length in zip(labels, lengths, strict=True))
        captions += [decode(row) if args.source == "captions" else "".join(map(str, row.tolist())) for row in rows]
    sample_grid(torch.cat(images), captions, args.out)
    print(f"wrote {args.out}")


def _of_each_length(args: "argparse.Namespace") -> Iterator[tuple["Tensor", "Tensor", "Tensor"]]:
    """Images (B, C, H, W) in [0, 1], labels (B, L) and lengths (B,), a batch for every length that there is."""
    from fastdraw.data import Captions, ImageStream, MultiDigits, load_cells, load_mnist_images
    from fastdraw.data.svhn import load_svhn

    if args.source == "mnist":
        cells = load_cells(args.root, args.split, args.download)
        for length in range(1, 5):
            yield MultiDigits(cells, [float(length == other) for other in range(1, 5)], args.count, SEED).batch(0)
        return
    if args.source in ("binarised", "captions"):
        images = load_mnist_images(args.root, args.split, args.download)
        if args.source == "captions":
            yield Captions(images, args.count, SEED).batch(0)
        else:
            yield ImageStream(images, (1,), args.count, SEED, binarise=True).batch(0)
        return
    svhn = load_svhn(args.root, args.split, align=args.align, channels=args.channels, download=args.download)
    for length in svhn.lengths.unique():
        chosen = (svhn.lengths == length).nonzero()[: args.count, 0]
        yield svhn.images[chosen].float() / 255, svhn.labels[chosen], svhn.lengths[chosen]
