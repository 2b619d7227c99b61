"""fastdraw reconstruct"""

from collections.abc import Sequence
from pathlib import Path

from fastdraw.cli.arguments import Parser, count, device_argument, folder, root_argument, run_argument, seed_argument


def main(argv: Sequence[str]) -> None:
    """Encode test images, draw them again, and write both to reconstructions.png."""
    parser = Parser(
        prog="fastdraw reconstruct",
        description="Encode test images, draw them again, and write both to reconstructions.png.",
        epilog="example:\n  fastdraw reconstruct runs/seqdraw --count 16",
    )
    run_argument(parser)
    parser.add_argument("--count", metavar="INT", type=count, default=16, help="images (default: %(default)s)")
    seed_argument(parser)
    parser.add_argument("--out", metavar="DIR", type=folder, help="folder for the picture (default: RUN)")
    root_argument(parser)
    device_argument(parser)
    args = parser.parse_args(argv)

    import torch

    from fastdraw.evaluation import reconstruction_grid
    from fastdraw.training import held_out_source, load_model

    model, settings = load_model(args.run, args.device)
    batch = held_out_source(settings.at(args.root), args.count).mixed_batch(0)
    noise = model.noise(args.count, batch.labels.shape[1], torch.Generator().manual_seed(args.seed))
    with torch.no_grad():
        canvas = model(*(tensor.to(noise.device) for tensor in batch), noise).canvas

    out: Path = args.out or args.run
    out.mkdir(parents=True, exist_ok=True)
    reconstruction_grid(batch.image, canvas.sigmoid().cpu(), out / "reconstructions.png")
    print(f"wrote {out / 'reconstructions.png'}")
