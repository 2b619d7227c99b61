"""fastdraw info"""

from collections.abc import Sequence

from fastdraw.cli.arguments import Parser


def main(argv: Sequence[str]) -> None:
    """Print the report of fastdraw.info, or its table."""
    parser = Parser(prog="fastdraw info", description="Show versions, build flags, devices and what can run here.")
    parser.add_argument("--table", action="store_true", help="print which backends have which op, in Markdown")
    args = parser.parse_args(argv)

    from fastdraw import info

    print(info.table() if args.table else info.report())
