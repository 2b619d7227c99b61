"""fastdraw reconstruct"""

from collections.abc import Sequence
from pathlib import Path

from fastdraw.cli.arguments import Parser, device_argument, folder, root_argument, run_argument, seed_argument, within
from fastdraw.cli.images import check_own_images, own_images, own_images_arguments


def main(argv: Sequence[str]) -> None:
    """Encode images, draw them again, and write both to reconstructions.png."""
    parser = Parser(
        prog="fastdraw reconstruct",
        description="Encode test images or your own, draw them again, and write both to reconstructions.png; of a VAE\n"
        "with several stages every stage.",
        epilog="examples:\n  fastdraw reconstruct runs/seqdraw --count 16\n"
        "  fastdraw reconstruct runs/vae --images scans --invert",
    )
    run_argument(parser)
    own_images_arguments(parser)
    parser.add_argument(
        "--count", metavar="INT", type=within(1, 10_000), default=16, help="images at most (default: %(default)s)"
    )
    seed_argument(parser)
    parser.add_argument("--out", metavar="DIR", type=folder, help="folder for the picture (default: RUN)")
    root_argument(parser)
    device_argument(parser)
    args = parser.parse_args(argv)
    check_own_images(args)

    import torch

    from fastdraw.data import Batch, EpochStream
    from fastdraw.evaluation import stage_grid
    from fastdraw.models import Vae
    from fastdraw.training import held_out_source, load_model
    from fastdraw.training.bound import noise_for

    model, settings = load_model(args.run, args.device)
    if args.images is None:
        source = held_out_source(settings.at(args.root), args.count)
        batch = source.mixed_batch(0)
        if isinstance(source, EpochStream):  # which begins again where there are fewer images
            batch = Batch(*(tensor[: len(source.images)] for tensor in batch))
    else:
        batch, _ = own_images(args, settings, args.count)
    noise = noise_for(model, batch.labels, torch.Generator().manual_seed(args.seed))
    with torch.no_grad():
        output = model(*(tensor.to(noise.device) for tensor in batch), noise)
    stages = output.stages if isinstance(model, Vae) else [output.canvas]

    out: Path = args.out or args.run
    out.mkdir(parents=True, exist_ok=True)
    stage_grid(batch.image, [model.expected(stage).cpu() for stage in stages], out / "reconstructions.png")
    print(f"wrote {out / 'reconstructions.png'}")
