"""How the time of a training step grows with T, B, U and H x W: scaling.png, and scaling.json beside it.

python -m benchmarks.scaling --out docs/results
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from benchmarks.facts import machine, source
from benchmarks.interleave import interleaved
from benchmarks.plotting import BLUE, GREY, VERMILION, quiet, write
from benchmarks.work import Work
from fastdraw.files import write_atomically

R = Work()
PANELS = {
    "steps T": [(steps, replace(R, steps=steps)) for steps in (5, 10, 20, 40, 80)],
    "batch B": [(batch, replace(R, batch=batch)) for batch in (1, 4, 16, 64, 256)],
    "LSTM units U": [(units, replace(R, hidden=units)) for units in (100, 200, 400, 800)],
    "pixels H x W": [(2 * side * side, replace(R, height=side, width=2 * side)) for side in (16, 32, 64, 128)],
}
LINES = {
    "eager": ("eager PyTorch", VERMILION, "-"),
    "ours": ("fastdraw", BLUE, "-"),
    "floor": ("matrix products alone", GREY, "--"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="turns of every competitor (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder of the picture and its figures")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = {**source(), "machine": machine(given.threads), "rounds": given.rounds}
    results["date"] = datetime.now(timezone.utc).date().isoformat()
    results["panels"] = measure(given.rounds, given.threads)
    write_atomically(given.out / "scaling.json", (json.dumps(results, indent=1) + "\n").encode())
    draw(results, given.out / "scaling.png")


def measure(rounds: int, threads: int) -> dict[str, Any]:
    """For each panel its sizes, and the median seconds of every competitor at each."""
    panels: dict[str, Any] = {}
    for label, points in PANELS.items():
        seconds: dict[str, list[float]] = {name: [] for name in LINES}
        for size, work in points:
            print(f"measuring {label} = {size}", file=sys.stderr, flush=True)
            row = interleaved("training", list(LINES), work, rounds, threads)
            for name in LINES:
                seconds[name].append(median(row["values"][name]["step"]))
        panels[label] = {"sizes": [size for size, _ in points], "seconds": seconds}
    return panels


def draw(results: Mapping[str, Any], path: Path) -> None:
    """One panel for each size, all with the same logarithmic scale of time."""
    figure = Figure((13, 4), layout="constrained")
    panels = figure.subplots(1, len(results["panels"]), sharey=True)
    for axes, (label, panel) in zip(panels, results["panels"].items(), strict=True):
        sizes = panel["sizes"]
        for name, (title, colour, style) in LINES.items():
            milliseconds = [1e3 * value for value in panel["seconds"][name]]
            axes.loglog(sizes, milliseconds, style, color=colour, marker="o", markersize=4, label=title)
        first = 1e3 * panel["seconds"]["ours"][0]
        axes.loglog(
            [sizes[0], sizes[-1]],
            [first, first * sizes[-1] / sizes[0]],
            ":",
            color="0.7",
            zorder=1,
            label="proportional",
        )
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.set_box_aspect(1)
        quiet(axes)
    panels[0].set_ylabel("ms per training step")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    others = f"B={R.batch}, T={R.steps}, U={R.hidden}, {R.height} x {R.width} pixels"
    figure.suptitle(f"A training step; sizes other than the one on the axis: {others}", fontsize="medium")
    write(figure, path)


if __name__ == "__main__":
    main()
