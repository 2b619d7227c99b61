"""fastdraw reproduce TABLE"""

import importlib
from collections.abc import Sequence

from fastdraw.cli.arguments import Parser

TABLES = {
    "sharpness": "the claim of paper 003: how sharp images of a VAE, a residual and a multi-stage VAE are",
    "table1": "of paper 001: reconstruction loss and KL of the VAE by latent size and beta, on MNIST",
    "table2": "of paper 000: accuracy of a classifier on drawn numbers",
}


def main(argv: Sequence[str]) -> None:
    """Train what a table compares, measure it, and write the table."""
    parser = Parser(
        prog="fastdraw reproduce",
        description="Reproduce a table of a paper as a whole: train, draw, measure, and write it beside the paper's.",
        epilog="tables:\n" + "\n".join(f"  {name:10} {text}" for name, text in TABLES.items()),
    )
    parser.add_argument("table", metavar="TABLE", choices=TABLES, help="one of those below; TABLE --help says more")
    # Everything after the table is the table's own.
    table = parser.parse_args(argv[:1]).table
    importlib.import_module(f"fastdraw.cli.reproduce.{table}").main(argv[1:])
