"""fastdraw resume"""

from collections.abc import Sequence

from fastdraw.cli.arguments import Parser, count, run_argument


def main(argv: Sequence[str]) -> None:
    """Go on with a run."""
    parser = Parser(
        prog="fastdraw resume",
        description="Go on with a run from its checkpoint. It ends bit for bit as if it had never been stopped.",
        epilog="examples:\n  fastdraw resume runs/seqdraw\n  fastdraw resume runs/seqdraw --steps 200000",
    )
    run_argument(parser)
    parser.add_argument(
        "--steps",
        metavar="INT",
        type=count,
        help="steps in all, which learning rate and curriculum follow (default: as the run was started)",
    )
    args = parser.parse_args(argv)

    from fastdraw.training import resume

    resume(args.run, args.steps)
