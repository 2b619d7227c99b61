"""What was measured on a GPU, beside what is predicted; `python -m benchmarks.gpu.page` fills docs/gpu.md."""

import json
from typing import Any, NamedTuple

from benchmarks.gpu.defaults import with_ours
from benchmarks.gpu.report import PEERS, commit, memory_ratio, ratio, share_of_roof, times, worst_ops
from benchmarks.interleave import ROOT
from benchmarks.report import amount
from fastdraw.files import write_atomically

PAGE, PREDICTED = ROOT / "docs" / "gpu.md", ROOT / "docs" / "results" / "gpu-predicted.json"
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
NOT_MEASURED = "not yet measured on a GPU"
STEPS, TRAINING, FORWARD = 30, "training B=128 {}", "forward B=128 {}"
GLIMPSES = ("glimpse_read", "glimpse_write", "draw_read")
ROWS = {
    "training B=128 float32": "training step, B=128, T=30",
    "training B=128 bfloat16": "training step, B=128, T=30, bfloat16",
    "training B=16 float32": "training step, B=16, T=30",
    "training B=1 float32": "training step, B=1, T=30",
    "drawing B=128 float32": "drawing, B=128, T=30",
    "drawing B=1 float32": "drawing, B=1, T=30",
}

Cases = dict[str, Any]


class Goal(NamedTuple):
    what: str
    bound: str
    measured: str | None
    predicted: str | None


def latest() -> dict[str, Any] | None:
    """The results of the last run of `make gpu` that is kept."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    newest = max(found, key=lambda results: results["machine"]["date"], default=None)
    return newest and with_ours(newest)


def predictions() -> dict[str, Any]:
    return json.loads(PREDICTED.read_text())


def goals(results: dict[str, Any] | None, predicted: dict[str, Any]) -> list[Goal]:
    """Those of the design, each with what is known."""
    timings = results.get("timings", {}) if results else {}
    rollouts, ops = (timings.get(group, {}).get("cases", {}) for group in ("rollouts", "ops"))
    found = []
    for dtype in ("float32", "bfloat16"):
        case = TRAINING.format(dtype)
        name = f"training step, B=128, T=30, {dtype}"
        found.append(Goal(f"{name}: eager over fastdraw", ">= 30 x", *_ratio(case, "eager", rollouts, predicted)))
        found.append(Goal(f"{name}: reduce-overhead", ">= 4 x", *_ratio(case, "reduce-overhead", rollouts, predicted)))
        memory = memory_ratio(rollouts.get(case, {}))
        found.append(Goal(f"{name}: peak memory over eager's", "<= 0.5 x", _times(memory), None))
        case = FORWARD.format(dtype)
        kernel = times(rollouts.get(case, {}), "ours", "kernel")
        step = amount(kernel["p50"] / STEPS, "s") if kernel else None
        guess = amount(predicted["cases"][case]["seconds"]["ours"] / STEPS, "s")
        found.append(Goal(f"one forward step, B=128, {dtype}", "<= 10 us", step, guess))
    for what, bound, chosen in (("each op alone", ">= 1 x", ""), ("the same, glimpses", ">= 3 x", GLIMPSES)):
        measured = [pair for name, pair in worst_ops(ops).items() if name.startswith(chosen)]
        guesses = [
            each["seconds"]["graph"] / each["seconds"]["ours"]
            for case, each in predicted["cases"].items()
            if " B=" not in case and case.startswith(chosen)
        ]
        worst = _times(min(measured)[0]) if measured else None
        found.append(
            Goal(f"{what}: eager over fastdraw, least of all", bound, worst, f"{min(guesses):.1f} x (GPU time)")
        )
    return found


def _ratio(case: str, who: str, rollouts: Cases, predicted: dict[str, Any]) -> tuple[str | None, str | None]:
    seconds = predicted["cases"][case]["seconds"]
    guess = f"{seconds[who] / seconds['ours']:.1f} x" if who in seconds else None
    return _times(ratio(rollouts.get(case, {}), who)), guess


def _times(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} x"


def goals_table(found: list[Goal]) -> str:
    lines = ["| figure | goal | measured | predicted |", "|---|---|---|---|"]
    for goal in found:
        lines.append(
            f"| {goal.what} | {goal.bound} | {goal.measured or NOT_MEASURED} | {goal.predicted or 'no prediction'} |"
        )
    return "\n".join(lines)


def predicted_table(predicted: dict[str, Any]) -> str:
    """Launches and times of every rollout, and of the ops in float32."""
    lines = [
        "| work | launches: fastdraw, eager | per step | fastdraw | eager's graph | eager |",
        "|---|---|---|---|---|---|",
    ]
    for case, each in predicted["cases"].items():
        if case.endswith("bfloat16") and " B=" not in case:
            continue
        count, steps, seconds = each["launches"], each["launches_per_step"], each["seconds"]
        per_step = f"{steps['ours']}, {steps['eager']}" if steps else ""
        cells = [amount(seconds[who], "s") for who in ("ours", "graph", "eager")]
        lines.append(f"| {case} | {count['ours']}, {count['eager']} | {per_step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measured_table(results: dict[str, Any]) -> str:
    """Every case that was timed: wall time, GPU time, share of the roof, memory, and the peers."""
    roof = results["timings"]["roof"]
    head = ["case", "wall time p20, p50, p80", "GPU time p20, p50, p80", "of the roof", "peak memory", *PEERS.values()]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for group in ("rollouts", "ops", "lstm"):
        for case, row in results["timings"].get(group, {}).get("cases", {}).items():
            who = "cudnn" if group == "lstm" else "ours"
            share, memory = share_of_roof(row.get(who, {}), case.split()[-1], roof), row.get(who, {}).get("memory")
            cells = [case, *(_quantiles(times(row, who, kind)) for kind in ("wall", "kernel"))]
            cells.append(f"{share:.1%}" if share is not None else "")
            cells.append(amount(memory["allocated"], "bytes") if memory else "")
            cells += [_times(ratio(row, peer)) or "" for peer in PEERS]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def backends_table(results: dict[str, Any]) -> str:
    """Every case on both GPU backends, and for a rollout the GPU time of one of its steps."""
    head = ["case", "Triton, GPU time", "CUDA C++, GPU time", "per step", "Triton over CUDA C++: GPU time", "wall time"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for group in ("rollouts", "ops"):
        for case, row in results["timings"].get(group, {}).get("cases", {}).items():
            both = [times(row, who, "kernel") for who in ("triton", "cuda")]
            medians = [each["p50"] if each else None for each in both]
            cells = [amount(value, "s") if value else "" for value in medians]
            steps = [amount(value / STEPS, "s") if value and group == "rollouts" else "" for value in medians]
            cells.append(", ".join(filter(None, steps)))
            cells += [_times(ratio(row, "triton", kind, "cuda")) or "" for kind in ("kernel", "wall")]
            lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _quantiles(found: dict[str, Any] | None) -> str:
    return ", ".join(amount(found[key], "s") for key in ("p20", "p50", "p80")) if found else ""


ASSUMPTIONS = """\
Launches are counted in the code of commit {commit} ({date}), bytes and products follow from the sizes.
Assumed of an H200: {bandwidth:g} TB/s, {single:g} TFLOP/s in float32 and {half:g} in bfloat16, {graph:g} us for a
launch in a graph and {eager:g} us for one by the host. Products are taken at the peak rate, which small ones do not
reach, and launches as if none overlapped. An op alone is the GPU's time, whatever the host needs to call it."""


def assumptions(predicted: dict[str, Any]) -> str:
    assumed = predicted["assumed"]
    return ASSUMPTIONS.format(
        commit=commit(predicted),
        date=predicted["date"],
        bandwidth=assumed["bytes_per_s"] / 1e12,
        single=assumed["float32_flops_per_s"] / 1e12,
        half=assumed["bfloat16_flops_per_s"] / 1e12,
        graph=assumed["graph_launch_s"] * 1e6,
        eager=assumed["eager_launch_s"] * 1e6,
    )


def machine(results: dict[str, Any]) -> str:
    about = results["machine"]
    versions = f"driver {about['driver']}, CUDA {about['cuda']}, torch {about['torch']}, Triton {about['triton']}"
    return f"{about['gpu']} ({versions}), {about['date'][:10]}, commit {commit(results['source'])}"


def block(results: dict[str, Any] | None, predicted: dict[str, Any]) -> str:
    """All that docs/gpu.md says of the figures."""
    unmeasured = f"**No GPU has run this yet**: every row says `{NOT_MEASURED}`, with a prediction beside it."
    parts = [f"Measured on {machine(results)}." if results else unmeasured, goals_table(goals(results, predicted))]
    if results and "roof" in results.get("timings", {}):
        parts += ["## Measured", measured_table(results), "## Triton and CUDA C++", backends_table(results)]
    return "\n\n".join([*parts, "## Predicted", assumptions(predicted), predicted_table(predicted)])


def readme_block() -> str:
    """The README's table: one row for each rollout."""
    results, predicted = latest(), predictions()
    rollouts = results.get("timings", {}).get("rollouts", {}).get("cases", {}) if results else {}
    units = "times of others in units of fastdraw's, wall time, medians over rounds in which all took turns:"
    unmeasured = (
        "No GPU has run this yet: beside every row stands what launches, bytes and products of the code predict."
    )
    lines = [f"On {machine(results)}; {units}" if results else unmeasured, ""]
    lines.append(
        f"| seqDRAW, 32 x 64 pixels, 400 units | fastdraw | {' | '.join(PEERS.values())} | predicted for an H200 |"
    )
    lines.append("|---" * (len(PEERS) + 3) + "|")
    for case, title in ROWS.items():
        row, seconds = rollouts.get(case, {}), predicted["cases"][case]["seconds"]
        ours = times(row, "ours", "wall")
        cells = [amount(ours["p50"], "s") if ours else NOT_MEASURED]
        cells += [_times(ratio(row, peer)) or "" for peer in PEERS]
        guess = f"{amount(seconds['ours'], 's')}; eager {seconds['eager'] / seconds['ours']:.0f} x"
        lines.append(f"| {title} | {' | '.join(cells)} | {guess} |")
    return "\n".join(lines)


def filled(text: str) -> str:
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + block(latest(), predictions()) + "\n" + END + after


if __name__ == "__main__":
    write_atomically(PAGE, filled(PAGE.read_text()).encode())
