"""Fill the tables and figures of README.md and of pages in docs from what was measured: `python scripts/readme.py`.

A block stands between <!-- name --> and <!-- /name -->.
"""

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

from persistent_tables import levels, residency

from benchmarks.gpu.page import readme_block
from fastdraw import dispatch, info
from fastdraw.evaluation.reader import proportion
from fastdraw.evaluation.table2 import PAPER, Counts, Results

ROOT = Path(__file__).parents[1]


def filled(page: str) -> str:
    """A page with every block made anew."""
    text = (ROOT / page).read_text()
    for name, make in PAGES[page].items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(
            pattern, lambda found, make=make: found[1] + make() + "\n" + found[2], text, flags=re.DOTALL
        )
        if count != 1:
            raise SystemExit(f"{page} has {count} blocks {name!r}, expected 1")
    return text


def _figures(path: str) -> Any:
    return json.loads((ROOT / "docs" / "results" / path).read_text())


def _percent(share: dict[str, float]) -> str:
    return f"{share['value']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _demo() -> str:
    run, faster = _figures("demo/metrics.json"), _figures("demo/speed.json")["faster"]
    seconds = run["seconds"]
    drawn = run["accuracy"]["1"]
    return (
        "In the run that is kept in [docs/results/demo](docs/results/demo), `fastdraw demo` took "
        f"{seconds['command'] / 60:.1f} minutes on 2 CPU cores, {seconds['training'] / 60:.1f} of them for "
        f"{run['settings']['steps']} steps of training. A reader that was trained on real digits only, and reads "
        f"{_percent(run['reader'])} of held-out real digits right, read {_percent(drawn)} of {drawn['total']} drawn "
        "digits as the digit asked for (95 % Wilson intervals, over the drawings of one training run). A step of its "
        f"training is {faster['before']['median']:.1f} times as fast as it was while the recurrence was a loop over "
        f"fused ops, and {faster['eager']['median']:.1f} times as fast as in plain PyTorch "
        "([measured in turns](docs/results/demo/speed.json))."
    )


WORK = {
    "training-100": "training step, B=100, T=20",
    "training-16": "training step, B=16, T=30",
    "training-1": "training step, B=1, T=30",
    "generate-64": "drawing, B=64, T=30",
    "generate-1": "drawing, B=1, T=30",
}
PEERS = {"floor": "matrix products alone", "eager": "PyTorch", "compile": "`torch.compile`", "jax": "JAX"}


def _speed() -> str:
    results = _figures("cpu.json")
    machine = results["machine"]
    lines = [
        f"Times of others in units of fastdraw's, float32, {machine['threads']} threads of an {machine['cpu']} "
        f"({', '.join(machine['instructions'])}), medians over rounds in which all took turns:",
        "",
        f"| seqDRAW, 32 x 64 pixels, 400 units | fastdraw | {' | '.join(PEERS.values())} |",
        "|---|---|" + "---|" * len(PEERS),
    ]
    for name, title in WORK.items():
        values = {key: times["step"] for key, times in results["rows"][name]["values"].items()}
        ours = values["ours"]
        ratios = [
            f"{median(a / b for a, b in zip(values[peer], ours, strict=True)):.2f}" if peer in values else ""
            for peer in PEERS
        ]
        lines.append(f"| {title} | {median(ours) * 1e3:.1f} ms | {' | '.join(ratios)} |")
    return "\n".join(lines)


def table2_block(results: Path) -> str:
    """What the models of Table II drew on multi-digit MNIST, from a folder of results, or a line that says not yet."""
    path = results / "table2-mnist.json"
    if not path.exists():
        return "Table II (`fastdraw reproduce table2 --data mnist`): not yet run."
    table = Results.read(path)
    lengths = sorted(table.classifier)

    def row(title: str, counts: list[dict[int, Counts]], paper: tuple[float, ...] = ()) -> str:
        cells = []
        for length in lengths:
            parts = [part[length] for part in counts]
            share = proportion(sum(part.predicted_length for part in parts), sum(part.images for part in parts))
            cells.append(_percent(share._asdict()) + (f"; {paper[length - 1]:.2f}%" if length <= len(paper) else ""))
        return f"| {title} | {' | '.join(cells)} |"

    models = [model for model in PAPER if any(run.model == model for run in table.runs)]
    seeds = {sum(run.model == model for run in table.runs) for model in models}
    steps = {run.steps for run in table.runs}
    return "\n".join(
        [
            "`fastdraw reproduce table2 --data mnist`: numbers drawn from the prior that a classifier reads right in "
            f"length and all digits, with 95 % Wilson intervals over the drawings of {_range(seeds)} training runs of "
            f"{_range(steps)} steps; behind the semicolon the paper's figure, which is of reconstructions on SVHN. "
            "[Everything else](docs/results/table2-mnist.md): reconstructions, seeds one by one, settings, times.",
            "",
            f"| digits in the image | {' | '.join(map(str, lengths))} |",
            "|---|" + "---|" * len(lengths),
            row("real held-out images: the classifier itself", [table.classifier]),
            *(row(model, [run.prior for run in table.runs if run.model == model], PAPER[model]) for model in models),
        ]
    )


def _range(values: set[int]) -> str:
    return str(min(values)) if len(values) == 1 else f"{min(values)} to {max(values)}"


GOALS = {1: 0.95, 2: 0.85, 3: 0.75}  # of numbers drawn on multi-digit MNIST, all digits right


def reached_block(results: Path) -> str:
    """The goals of this reproduction beside what was reached, or a line that says not yet."""
    path = results / "table2-mnist.json"
    if not path.exists():
        return "Not yet run."
    runs = [run for run in Results.read(path).runs if run.model == "seqDRAW-cur"]
    longer = json.loads((results / "seqdraw-cur-mnist" / "evaluation.json").read_text())
    lines = [
        f"| | goal | seqDRAW-cur of Table II, {len(runs)} seeds, {_range({run.steps for run in runs})} steps | "
        f"one of them trained on to {longer['settings']['steps']} steps |",
        "|---|---|---|---|",
    ]
    for length, goal in GOALS.items():
        pooled = [run.prior[length] for run in runs]
        further = [Counts(**longer["classifier"][str(length)]["prior"])]
        cells = []
        for counts in (pooled, further):
            share = proportion(sum(part.predicted_length for part in counts), sum(part.images for part in counts))
            cells.append(f"{_percent(share._asdict())}{'' if share.value >= goal else ', missed'}")
        lines.append(f"| L = {length} | {goal:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _example(name: str) -> str:
    """The table that an example wrote beside its pictures."""
    return (ROOT / "docs" / "results" / name / "table.md").read_text().rstrip("\n")


PAGES = {
    "README.md": {
        "demo": _demo,
        "table": info.table,
        "speed": _speed,
        "gpu": readme_block,
        "table2": lambda: table2_block(ROOT / "docs" / "results"),
    },
    "docs/paper-000.md": {"reached": lambda: reached_block(ROOT / "docs" / "results")},
    "docs/examples.md": {"anomaly": lambda: _example("anomaly"), "compression": lambda: _example("compression")},
}

if dispatch.emulated or dispatch.cuda_refusal is None:  # what a launch takes is asked of the code that launches
    PAGES["docs/design/persistent-rollout.md"] = {"levels": levels, "residency": residency}


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(filled(page))
