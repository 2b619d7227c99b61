"""fastdraw train"""

import os
from collections.abc import Sequence

from fastdraw.cli.arguments import Parser, folder, parse_settings_arguments

EXAMPLES = """examples:
  fastdraw train --preset seqdraw-mnist --root mnist --download --out runs/seqdraw
  fastdraw train --preset demo --model.hidden 128 --steps 500 --out runs/small"""


def main(argv: Sequence[str]) -> None:
    """Train a model from the start."""
    first = Parser(prog="fastdraw train", add_help=False)
    first.add_argument("--preset", metavar="NAME")
    preset = first.parse_known_args(argv)[0].preset

    parser = Parser(
        prog="fastdraw train",
        description="Train a model by a preset, by settings, or by a preset and settings that change it.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--preset", metavar="NAME", help="settings to start from (default: none)")
    parser.add_argument("--out", metavar="RUN", type=folder, required=True, help="folder for the run")
    args, settings = parse_settings_arguments(parser, argv, preset)

    from fastdraw.training import train

    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts
        print(f"settings: {settings.model_dump_json()}")
    train(settings, args.out)
