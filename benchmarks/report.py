"""What was measured against the goals, as tables in Markdown; `python -m benchmarks.report` fills docs/cpu.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from fastdraw.files import write_atomically

DOCS = Path(__file__).parents[1] / "docs"
RESULTS, PAGE = DOCS / "results" / "cpu.json", DOCS / "cpu.md"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
NAMES = {
    "ours": "fastdraw",
    "floor": "floor",
    "eager": "eager",
    "compile": "`torch.compile`",
    "jax": "JAX `jit` + `scan`",
    "bfloat16": "fastdraw, bfloat16",
    "equal": "fastdraw, equal lengths",
}
TITLES = {
    "training-100": "training step, B=100, T=20",
    "training-16": "training step, B=16, T=30",
    "training-1": "training step, B=1, T=30",
    "bfloat16": "training step, B=100, T=20, bfloat16",
    "bfloat16-1": "training step, B=1, T=30, bfloat16",
    "generate-1": "`draw_generate`, B=1, T=30",
    "generate-64": "`draw_generate`, B=64, T=30",
    "ops": "each op alone",
    "memory": "peak memory of a training step, B=100, T=20",
    "mixed": "1 to 4 digits in one batch, B=100, T=40",
}

Measured = Mapping[str, Any]  # what a row holds, as `interleaved` gives it


class Goal(NamedTuple):
    """A bound on how often `under` goes into the least of `over`, in the worst case of the row."""

    row: str
    over: tuple[str, ...]
    under: str
    relation: str  # "<=", ">=" or ">"
    bound: float
    what: str
    cases: tuple[str, ...] = ("",)  # beginnings of their names


class Ratio(NamedTuple):
    """Median over the rounds, and the quartiles."""

    low: float
    middle: float
    high: float


COMPILERS = ("compile", "jax")
GOALS = [
    Goal("training-100", ("ours",), "floor", "<=", 1.10, "time over the floor's"),
    Goal("training-100", ("eager",), "ours", ">=", 1.5, "faster than eager"),
    Goal("training-100", ("compile",), "ours", ">", 1.0, "faster than `torch.compile`"),
    Goal("training-100", ("jax",), "ours", ">", 1.0, "faster than JAX"),
    Goal("training-16", ("ours",), "floor", "<=", 1.25, "time over the floor's"),
    Goal("training-16", ("eager",), "ours", ">=", 3.0, "faster than eager"),
    Goal("training-16", COMPILERS, "ours", ">=", 1.2, "faster than the faster compiler"),
    Goal("training-1", ("ours",), "floor", "<=", 1.0, "time over the floor's"),
    Goal("training-1", ("eager",), "ours", ">=", 8.0, "faster than eager"),
    Goal("training-1", ("jax",), "ours", ">=", 1.2, "faster than JAX"),
    Goal("bfloat16", ("bfloat16",), "ours", "<=", 0.6, "time over float32's"),
    Goal("generate-1", ("eager",), "ours", ">=", 4.0, "faster than eager"),
    Goal("generate-64", ("eager",), "ours", ">=", 2.0, "faster than eager"),
    Goal("ops", ("eager",), "ours", ">=", 1.0, "faster than eager, least of all"),
    Goal("ops", ("eager",), "ours", ">=", 3.0, "the same, glimpses", ("draw_read", "glimpse_read", "glimpse_write")),
    Goal("memory", ("ours",), "eager", "<=", 0.5, "memory over eager's"),
    Goal("mixed", ("ours",), "equal", "<=", 1.10, "time over that of equal lengths, for as many sample-steps"),
]


def ratio(over: Sequence[float], under: Sequence[float]) -> Ratio:
    """Of times in the same round, which the machine's drift hardly touches."""
    found = [a / b for a, b in zip(over, under, strict=True)]
    return Ratio(*quantiles(found, n=4, method="inclusive")) if len(found) > 1 else Ratio(*found * 3)


def judged(goal: Goal, row: Measured | None) -> tuple[Ratio, str] | None:
    """The ratio that the goal is about and the case it comes from; None where it was not measured."""
    values = row["values"] if row else {}
    over = [name for name in goal.over if name in values]
    if goal.under not in values or not over:
        return None
    cases = [case for case in values[goal.under] if case.startswith(goal.cases)]
    found = [(ratio(values[name][case], values[goal.under][case]), case) for name in over for case in cases]
    if not found:
        return None
    worst = max if goal.relation == "<=" else min
    return worst(found, key=lambda pair: pair[0].middle)


def reached(goal: Goal, value: float) -> bool:
    return {"<=": value <= goal.bound, ">=": value >= goal.bound, ">": value > goal.bound}[goal.relation]


def goals_table(rows: Mapping[str, Measured]) -> str:
    lines = ["| work | figure | goal | measured | quartiles | |", "|---|---|---|---|---|---|"]
    for goal in GOALS:
        found = judged(goal, rows.get(goal.row))
        cells = [TITLES[goal.row], goal.what, f"{goal.relation} {goal.bound:.2f} x"]
        if found is None:
            cells += ["", "", "not measured"]
        else:
            value, case = found
            where = "" if case == "step" else f" ({case})"
            cells += [f"{value.middle:.2f} x{where}", f"{value.low:.2f} to {value.high:.2f}"]
            absent = [name for name in goal.over if name not in rows[goal.row]["values"]]
            if goal.row == "ops":
                absent += [op for op in rows["ops"]["left_out"] if op.startswith(goal.cases)]
            verdict = "reached" if reached(goal, value.middle) else "**not reached**"
            if reached(goal, value.low) != reached(goal, value.high):
                verdict += ", but the quartiles lie on both sides"
            cells.append(f"{verdict}, without {' and '.join(absent)}" if absent else verdict)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def medians_table(rows: Mapping[str, Measured]) -> str:
    """Median times of whole models, and the peaks of memory."""
    lines = [f"| work | {' | '.join(NAMES.values())} |", "|---|" + "---|" * len(NAMES)]
    for key, row in rows.items():
        if key != "ops":
            lines.append(f"| {TITLES[key]} | {' | '.join(_median(row, name) for name in NAMES)} |")
    return "\n".join(lines)


def _median(row: Measured, name: str) -> str:
    if name not in row["values"]:
        return row["left_out"].get(name, "")
    text = amount(median(row["values"][name]["step"]), row["unit"])
    return f"{text} (first call {amount(row['first_call_s'][name], 's')})" if name in COMPILERS else text


def ops_table(row: Measured) -> str:
    lines = ["| op | pass | sizes | fastdraw | eager | ratio |", "|---|---|---|---|---|---|"]
    for case, ours in row["values"]["ours"].items():
        (op, passes, *sizes), eager = case.split(), row["values"]["eager"][case]
        cells = [f"`{op}`", passes, " ".join(sizes), amount(median(ours), "s"), amount(median(eager), "s")]
        lines.append(f"| {' | '.join(cells)} | {ratio(eager, ours).middle:.2f} x |")
    return "\n".join(lines)


def amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    scale, name = next((scale, name) for scale, name in ((1, "s"), (1e3, "ms"), (1e6, "us")) if value * scale >= 1)
    return f"{value * scale:.3g} {name}"


def page(results: Mapping[str, Any]) -> str:
    """All that is said of the results."""
    machine = results["machine"]
    rows = results["rows"]
    rounds = {len(values) for row in rows.values() for cases in row["values"].values() for values in cases.values()}
    foreign = max(row["foreign_cores"] for row in rows.values())
    facts = [
        f"{machine['cpu']} ({', '.join(machine['instructions'])}), {machine['cores']} cores, "
        f"{machine['threads']} threads each",
        f"torch {machine['torch']}, " + (f"JAX {machine['jax']}" if machine["jax"] else "JAX is not installed"),
        f"commit {results['commit']}{' with changes' if results['dirty'] else ''}",
        f"{results['date']}, rounds: {', '.join(str(count) for count in sorted(rounds))}",
        f"cores busy with other people's work, on average over a row: at most {foreign:.2f}",
    ]
    tables = [goals_table(rows), medians_table(rows)]
    if "ops" in rows:
        tables.append(ops_table(rows["ops"]))
    return "\n\n".join(["\n".join(f"- {fact}" for fact in facts), *tables])


def filled(text: str, results: Mapping[str, Any]) -> str:
    """A page with the block between BEGIN and END made anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must hold {BEGIN.strip()} and {END}")
    return before + begin + page(results) + "\n" + end + after


def fill() -> None:
    """Make the page's block anew from the results file."""
    write_atomically(PAGE, filled(PAGE.read_text(), json.loads(RESULTS.read_text())).encode())


if __name__ == "__main__":
    fill()
