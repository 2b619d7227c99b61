"""Keep what fastdraw reproduce table1 made in docs/results, without the paths of a machine.

python scripts/keep_table1.py TABLE

TABLE: the --out folder of fastdraw reproduce table1; leaves table1.md, and in table1/ results.json, curves.json (losses
of every run by epoch) and the figures.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keeping import DOCS, origin, read_file, to_json, write_files

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.table1 import PAPER, Results, RunLosses, render_table1
from fastdraw.evaluation.table1_pictures import epoch_losses
from fastdraw.training import Run

FIGURES = ("fig3.png", "fig4.png", "fig5.png", "beta.png", "redrawn.png")
LOSSES = ("loss", "nll", "kl")
COLUMNS = ("epoch", *(f"{split} {name}" for split in ("train", "test") for name in LOSSES), "seconds")


def keep_table(table: Path, target: Path) -> None:
    """Keep the losses, the table rendered from them, the figures, and the losses of every run by epoch.

    Raises:
        FastdrawError: a file is missing or broken, or the table lacks rows.
    """
    results = Results.read(table / "results.json")
    missing = PAPER.keys() - {run.row for run in results.runs}
    if missing:
        first = min(missing)
        raise FastdrawError(f"{table} has no row n = {first.latent}, beta = {first.beta:g}: let the table be finished")
    curves = {run.name: _by_epoch(results, run, Run.open(table / run.name)) for run in results.runs}
    files = {
        "table1.md": render_table1(results).encode(),
        "table1/results.json": to_json(results.model_dump(mode="json")),
        "table1/curves.json": to_json(origin() | {"columns": COLUMNS, "runs": curves}),
    }
    write_files(files | {f"table1/{name}": read_file(table / name) for name in FIGURES}, target)


def _by_epoch(results: Results, run: RunLosses, kept: Run) -> list[list[Any]]:
    """A row of COLUMNS for each measurement: train losses are means over the epoch before it; to six digits."""
    epoch = run.train.images / kept.settings().batch_size
    return [
        [
            float(f"{value:.6g}")
            for value in (at, *(split[name] for split in (train, test) for name in LOSSES), test["seconds"])
        ]
        for at, train, test in epoch_losses(kept.metrics(), epoch)
    ]


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 1:
        sys.exit(__doc__)
    try:
        keep_table(Path(arguments[0]), DOCS)
    except FastdrawError as error:
        sys.exit(f"keep_table1: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
