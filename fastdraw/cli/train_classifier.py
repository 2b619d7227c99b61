"""fastdraw train-classifier"""

import argparse
import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastdraw.cli.arguments import Parser, count, device_argument, folder, seed_argument
from fastdraw.errors import FastdrawError

if TYPE_CHECKING:
    from torch import Tensor

    from fastdraw.data import Source
    from fastdraw.evaluation import Augmentation

    Images = tuple[Tensor, Tensor, Tensor]  # images in [0, 1], labels, lengths

LONGEST = 4
TEST_IMAGES = 1000  # of each length, of multi-digit MNIST
TEST_SEED = 0


def main(argv: Sequence[str]) -> None:
    """Train a classifier, measure it on real images that it never saw, and write both to a folder."""
    parser = Parser(
        prog="fastdraw train-classifier",
        description="Train the multi-digit classifier of Goodfellow et al. on real images, and measure it on others:\n"
        "whole sequences with the length predicted, with the length given, and single digits.\n"
        "Writes config.json, model.safetensors and metrics.json.",
        epilog="examples:\n  fastdraw train-classifier --source mnist --out judge\n"
        "  fastdraw train-classifier --source svhn --root svhn --steps 10000 --out judge-svhn",
    )
    parser.add_argument("--source", choices=("mnist", "svhn"), required=True, help="multi-digit MNIST, or SVHN")
    parser.add_argument(
        "--root", metavar="DIR", type=folder, help="folder of the data (default, for mnist: the sample in this package)"
    )
    parser.add_argument("--out", metavar="DIR", type=folder, required=True, help="folder for the classifier")
    parser.add_argument(
        "--kind", choices=("goodfellow", "goodfellow-bn"), default="goodfellow-bn", help="default: %(default)s"
    )
    parser.add_argument(
        "--width", metavar="X", type=float, default=0.25, help="1: the paper's layers (default: %(default)s)"
    )
    parser.add_argument(
        "--dropout", metavar="X", type=float, default=0.0, help="share of every hidden layer (default: %(default)s)"
    )
    parser.add_argument("--steps", metavar="INT", type=count, default=3000, help="batches (default: %(default)s)")
    parser.add_argument(
        "--batch-size", metavar="INT", type=count, default=32, help="images in a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--holdout",
        metavar="N",
        type=count,
        default=10,
        help="svhn: keep every N-th train image from training, to measure on (default: %(default)s)",
    )
    seed_argument(parser, "the weights, the batches and their augmentation")
    device_argument(parser)
    args = parser.parse_args(argv)

    from pydantic import ValidationError

    import fastdraw
    from fastdraw.evaluation import measure_classifier, save_classifier, train_classifier
    from fastdraw.evaluation.classifier import MODEL
    from fastdraw.models.classifier import ClassifierConfig
    from fastdraw.training.loop import pick_device

    if (args.out / MODEL).exists():
        raise FastdrawError(f"{args.out} already holds a classifier: give another --out")
    device = pick_device(args.device)
    try:
        config = ClassifierConfig(kind=args.kind, multiplier=args.width, longest=LONGEST, dropout=args.dropout)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = {"multiplier": "width"}.get(str(first["loc"][0]), first["loc"][0])
        raise FastdrawError(f"--{name}: {first['msg']}, got {first['input']}") from None
    source, augmentation, held_out = _mnist(args) if args.source == "mnist" else _svhn(args)

    start = time.monotonic()
    classifier = train_classifier(source, config, args.steps, args.seed, augmentation, device)
    metrics: dict[str, Any] = {name: measure_classifier(classifier, *images) for name, images in held_out.items()}
    for name, groups in metrics.items():
        for length, shares in groups.items():
            digits = "all lengths" if length == "all" else f"{length} digit{'s' * (length != '1')}"
            said = ", ".join(f"{kind} {share['value']:.1%}" for kind, share in shares.items())
            print(f"{name}, {digits}, {shares['given']['total']} images: {said}")
    metrics |= {
        "training": {
            "source": args.source,
            "steps": args.steps,
            "batch_size": args.batch_size,
            "seed": args.seed,
            "augmentation": augmentation.model_dump(),
            "seconds": time.monotonic() - start,
        },
        "versions": {"fastdraw": fastdraw.__version__, "python": platform.python_version()},
    }
    save_classifier(classifier, metrics, args.out)
    print(f"wrote config.json, metrics.json and {MODEL} to {args.out}")


def _mnist(args: argparse.Namespace) -> "tuple[Source, Augmentation, dict[str, Images]]":
    """Multi-digit images of the train split to learn from, with all lengths alike; as many of the test split."""
    import torch

    from fastdraw.data import MultiDigits, load_cells
    from fastdraw.evaluation import Augmentation

    source = MultiDigits(load_cells(args.root, "train"), [1] * LONGEST, args.batch_size, args.seed)
    cells = load_cells(args.root, "test")
    streams = (
        MultiDigits(cells, [float(length == place) for place in range(LONGEST)], TEST_IMAGES, TEST_SEED)
        for length in range(LONGEST)
    )
    images, labels, lengths = zip(*(stream.batch(0) for stream in streams), strict=True)
    padded = [torch.nn.functional.pad(part, (0, LONGEST - part.shape[1])) for part in labels]
    return source, Augmentation(), {"test": (torch.cat(images), torch.cat(padded), torch.cat(lengths))}


def _svhn(args: argparse.Namespace) -> "tuple[Source, Augmentation, dict[str, Images]]":
    """Train images to learn from, as they come; every N-th of them, and the test images."""
    import torch

    from fastdraw.data import ImageStream, LabelledImages
    from fastdraw.data.svhn import load_svhn
    from fastdraw.evaluation import Augmentation

    if args.root is None:
        raise FastdrawError("--source svhn needs the folder that holds train/ and test/: give it as --root DIR")
    train, test = load_svhn(args.root, "train"), load_svhn(args.root, "test")
    kept = torch.arange(len(train)) % args.holdout != args.holdout - 1
    if kept.all() or not kept.any():
        raise FastdrawError(f"--holdout must lie in 2..{len(train)}, the number of train images; got {args.holdout}")
    learned, held_out = (
        LabelledImages(train.images[rows], train.labels[rows], train.lengths[rows]) for rows in (kept, ~kept)
    )
    weights = learned.lengths.bincount(minlength=LONGEST + 1)[1:].tolist()
    source = ImageStream(learned, weights, args.batch_size, args.seed)
    augmentation = Augmentation(scale=0.15, slant=0.2, contrast=0.4, inversion=0.5)
    parts = {"holdout": held_out, "test": test}
    return source, augmentation, {name: (of.images / 255, of.labels, of.lengths) for name, of in parts.items()}
