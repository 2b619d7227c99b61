"""fastdraw export"""

from collections.abc import Sequence

from fastdraw.cli.arguments import Parser, folder, run_argument


def main(argv: Sequence[str]) -> None:
    """Write the model of a run to config.json and model.safetensors."""
    parser = Parser(
        prog="fastdraw export",
        description="Write the model of a run alone, to be kept or passed on: config.json and model.safetensors. All\n"
        "commands that take a RUN but resume take such a folder, and so does fastdraw.training.load_model.",
        epilog="example:\n  fastdraw export runs/vae --out vae",
    )
    run_argument(parser)
    parser.add_argument("--out", metavar="DIR", type=folder, required=True, help="folder for both")
    args = parser.parse_args(argv)

    from fastdraw.training import load_model, save_model

    save_model(*load_model(args.run), args.out)
    print(f"wrote config.json and model.safetensors to {args.out}")
