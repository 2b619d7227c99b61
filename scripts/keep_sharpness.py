"""Keep what fastdraw reproduce sharpness made in docs/results/sharpness-DATA, without the paths of a machine.

python scripts/keep_sharpness.py DATA TABLE

DATA: mnist or celeba. TABLE: the --out folder of fastdraw reproduce sharpness. Leaves sharpness.md, results.json,
curves.png and runs.json, and of MNIST the pictures too: no image of CelebA is kept, nor what is made of its pixels.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from keeping import DOCS, kept_run, origin, read_file, to_json, write_files

from fastdraw.cli.reproduce.sharpness import PICTURES, TITLES
from fastdraw.errors import FastdrawError
from fastdraw.evaluation.sharpness_table import Results, render_sharpness


def keep_sharpness(data: str, table: Path, target: Path) -> None:
    """Keep the results, the page rendered from them, the curves, settings and metrics of every run, and pictures.

    Raises:
        FastdrawError: a file is missing or broken, or the results or a run are of other data.
    """
    results = Results.read(table / "results.json")
    if results.data != TITLES[data]:
        raise FastdrawError(f"{table} is of {results.data}, not of {TITLES[data]}")
    runs = [kept_run(table / f"{run.model}-{run.seed}", run.model, run.seed, run.seconds) for run in results.runs]
    sources = {run["settings"]["data"]["source"] for run in runs}
    if sources != {"digits" if data == "mnist" else "celeba"}:
        raise FastdrawError(f"{table} has runs on {', '.join(sorted(sources))}, which are not of {TITLES[data]}")
    files = {
        "results.json": to_json(results.model_dump(mode="json")),
        "sharpness.md": render_sharpness(results).encode(),
        "curves.png": read_file(table / "curves.png"),
        "runs.json": to_json(origin() | {"runs": runs}),
    }
    if data == "mnist":
        files |= {picture: read_file(table / picture) for picture in PICTURES}
    write_files(files, target / f"sharpness-{data}")


def main(arguments: Sequence[str]) -> None:
    if len(arguments) != 2 or arguments[0] not in TITLES:
        sys.exit(__doc__)
    try:
        keep_sharpness(arguments[0], Path(arguments[1]), DOCS)
    except FastdrawError as error:
        sys.exit(f"keep_sharpness: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
