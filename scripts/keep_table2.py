"""Keep what fastdraw reproduce table2 made, and figures of its models, in docs/results, without the paths of a machine.

python scripts/keep_table2.py DATA TABLE [MODEL=FIGURES ...]

DATA: mnist or svhn. TABLE: the --out folder of fastdraw reproduce table2; leaves table2-DATA.json, table2-DATA.md,
table2-DATA-curves.png and table2-DATA-runs.json. FIGURES: folders of fastdraw figures; leaves figures-DATA/ with the
pictures of the first, of the others those of digits that the first did not draw, and the claims of all.
"""

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keeping import DOCS, OF_THE_MACHINE, kept_run, origin, read_file, to_json, write_files
from PIL import Image, ImageSequence

from fastdraw.cli.reproduce.table2 import TITLES
from fastdraw.errors import FastdrawError
from fastdraw.evaluation import render_claims
from fastdraw.evaluation.table2 import Results, render_table2

GIF_BYTES = 1_000_000
DRAWN = ("strip-*.png", "attention*.png", "generation-*.gif")
OF_DIGITS = ("strip-*.png", "generation-*.gif")


def keep_table(data: str, table: Path, target: Path) -> None:
    """Keep the counts, the table rendered from them, the curves, and settings and metrics of every run.

    Raises:
        FastdrawError: a file is missing or broken, or the table is of other data.
    """
    results = Results.read(table / "results.json")
    if results.data != TITLES[data]:
        raise FastdrawError(f"{table} is a table of {results.data}, not of {TITLES[data]}")
    runs = []
    for counted in results.runs:
        runs.append(kept_run(table / f"{counted.model}-{counted.seed}", counted.model, counted.seed, counted.seconds))
    files = {
        f"table2-{data}.json": to_json(results.model_dump(mode="json")),
        f"table2-{data}.md": render_table2(results).encode(),
        f"table2-{data}-curves.png": read_file(table / "curves.png"),
        f"table2-{data}-runs.json": to_json(origin() | {"runs": runs}),
    }
    write_files(files, target)


def keep_figures(data: str, figures: Mapping[str, Path], target: Path) -> None:
    """Keep pictures and claims of models, by their names; of SVHN no picture that shows an image of the data set.

    Raises:
        FastdrawError: a file is missing or broken, a model is of other data, the models have no digits in common, or an
            animation cannot be made small enough.
    """
    claims, files = {}, {}
    for model, folder in figures.items():
        claims[model] = _claims(data, folder)
        patterns = OF_DIGITS if files else DRAWN if data == "svhn" else (*DRAWN, "reconstruction.gif")
        for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
            if path.name not in files:
                files[path.name] = small_gif(read_file(path)) if path.suffix == ".gif" else read_file(path)
    if not set.intersection(*(set(of_model["drawings"]) for of_model in claims.values())):
        raise FastdrawError(f"{', '.join(claims)} have no digits of two places or more in common: nothing to compare")
    page = f"# What the models of {TITLES[data]} draw, and when\n\n{render_claims(claims)}"
    write_files(files | {"claims.json": to_json(claims), "claims.md": page.encode()}, target / f"figures-{data}")


def small_gif(data: bytes, limit: int = GIF_BYTES) -> bytes:
    """An animation of at most `limit` bytes, where it has more with fewer colours and then with fewer frames.

    Raises:
        FastdrawError: it has too many bytes even so.
    """
    if len(data) <= limit:
        return data
    with Image.open(io.BytesIO(data)) as animation:
        pages = [(page.convert("RGB"), page.info["duration"]) for page in ImageSequence.Iterator(animation)]
    for every in (1, 2, 4):
        for colours in (64, 16):
            smaller = _animate(pages, every, colours)
            if len(smaller) <= limit:
                return smaller
    raise FastdrawError(f"an animation of {len(data)} bytes cannot be made as small as {limit}: show fewer drawings")


def _animate(pages: Sequence[tuple[Image.Image, int]], every: int, colours: int) -> bytes:
    """Every so many pages and always the last, each for as long as those that it stands for."""
    chosen = range((len(pages) - 1) % every, len(pages), every)
    images = [pages[place][0].quantize(colours, dither=Image.Dither.NONE) for place in chosen]
    durations = [sum(time for _, time in pages[max(0, place - every + 1) : place + 1]) for place in chosen]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)
    return file.getvalue()


def _claims(data: str, folder: Path) -> dict[str, Any]:
    try:
        claims = json.loads(read_file(folder / "claims.json"))
        source = claims["settings"]["data"]
        trained_on = source["source"]
    except (ValueError, KeyError, TypeError) as error:
        raise FastdrawError(f"{folder / 'claims.json'} holds no claims of fastdraw figures") from error
    if trained_on != data:
        raise FastdrawError(f"{folder} shows a model of {trained_on}, not of {data}")
    for name in OF_THE_MACHINE:
        source.pop(name, None)
    return claims


def main(arguments: Sequence[str]) -> None:
    if len(arguments) < 2 or arguments[0] not in TITLES or not all("=" in figures for figures in arguments[2:]):
        sys.exit(__doc__)
    data, table, *rest = arguments
    figures = {model: Path(folder) for model, folder in (pair.split("=", 1) for pair in rest)}
    try:
        keep_table(data, Path(table), DOCS)
        if figures:
            keep_figures(data, figures, DOCS)
    except FastdrawError as error:
        sys.exit(f"keep_table2: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
