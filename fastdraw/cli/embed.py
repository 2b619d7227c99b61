"""fastdraw embed"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastdraw.cli.arguments import Parser, device_argument, folder, root_argument, run_argument, within
from fastdraw.cli.images import check_own_images, held_out, own_images, own_images_arguments

if TYPE_CHECKING:
    import argparse

    from fastdraw.training import Settings

MOST = 100_000
DESCRIPTION = """Encode images, and write their codes and a picture of them:

  embedding.npz  codes (T, N, Z) float32, T = 1 for a VAE; labels (N, L) and lengths (N,); names (N,), the number of a
                 test image or the name of a file; places (N, 1 or 2), where the picture shows them; for numpy.load
  embedding.png  codes of one number as histograms, of two as points, of more as points that t-SNE has placed, with
                 a colour for each label where images have one digit"""


def main(argv: Sequence[str]) -> None:
    """Write the codes of images to embedding.npz, and where they lie to embedding.png."""
    parser = Parser(
        prog="fastdraw embed",
        description=DESCRIPTION,
        epilog="examples:\n  fastdraw embed runs/vae\n  fastdraw embed runs/vae --images scans --invert --out codes",
    )
    run_argument(parser)
    own_images_arguments(parser)
    parser.add_argument(
        "--count", metavar="INT", type=within(1, MOST), default=2000, help="images at most (default: %(default)s)"
    )
    parser.add_argument("--out", metavar="DIR", type=folder, help="folder for both (default: RUN)")
    root_argument(parser)
    device_argument(parser)
    args = parser.parse_args(argv)
    check_own_images(args)

    import numpy as np

    from fastdraw.evaluation import embed, embedding_plot, places_of_codes
    from fastdraw.files import write_atomically
    from fastdraw.training import load_model

    model, settings = load_model(args.run, args.device)
    if args.images is None:
        batch = held_out(args, settings, args.count)
        names = [str(number) for number in range(len(batch.image))]
    else:
        batch, names = own_images(args, settings, args.count)
    codes = embed(model, batch)
    places = places_of_codes(codes)

    out: Path = args.out or args.run
    out.mkdir(parents=True, exist_ok=True)
    data = io.BytesIO()
    np.savez(
        data,
        codes=codes.numpy(),
        labels=batch.labels.numpy(),
        lengths=batch.lengths.numpy(),
        names=np.array(names),
        places=places.numpy(),
    )
    write_atomically(out / "embedding.npz", data.getvalue())
    shown = batch.labels[:, 0] if _of_one_digit(args, settings) else None
    embedding_plot(places, shown, out / "embedding.png", "z" if codes[:, 0].numel() <= 2 else "t-SNE of z")
    print(f"wrote embedding.npz and embedding.png to {out}")


def _of_one_digit(args: "argparse.Namespace", settings: "Settings") -> bool:
    """Whether the images have labels, and each a single digit."""
    from fastdraw.training.settings import UNLABELLED

    if args.images is not None:
        return args.digits is not None and len(args.digits[0]) == 1
    return settings.data.longest == 1 and settings.data.source not in UNLABELLED
