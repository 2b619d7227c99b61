"""What was measured against the goals, as tables in Markdown."""

from collections.abc import Mapping, Sequence
from statistics import median, quantiles
from typing import Any, NamedTuple

BEGIN, END = "<!-- results -->\n", "<!-- /results -->"
NAMES = {"ours": "fastdraw", "compile": "`torch.compile`", "jax": "JAX `jit` + `scan`"}
TITLES = {
    "training-100": "training step, B=100, T=20",
    "training-16": "training step, B=16, T=30",
    "training-1": "training step, B=1, T=30",
    "bfloat16": "training step, B=100, T=20, bfloat16",
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
            cells.append("reached" if reached(goal, value.middle) else "**not reached**")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def medians_table(rows: Mapping[str, Measured]) -> str:
    """Medians of every competitor; where there is a compiler, the first call is the one that compiles."""
    lines = ["| work | competitor | median | first call |", "|---|---|---|---|"]
    for key, title in TITLES.items():
        row = rows.get(key, {"values": {}, "left_out": {}})
        for name, cases in row["values"].items():
            for case, values in cases.items():
                work = title if case == "step" else f"`{case.split()[0]}` {' '.join(case.split()[1:])}"
                first = f"{row['first_call_s'][name]:.1f} s" if row["first_call_s"].get(name) else ""
                lines.append(f"| {work} | {NAMES.get(name, name)} | {amount(median(values), row['unit'])} | {first} |")
        for name, reason in row["left_out"].items():
            lines.append(f"| {title} | {NAMES.get(name, name)} | left out: {reason} | |")
    return "\n".join(lines)


def amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return f"{value / 2**20:.1f} MiB"
    scale, name = next((scale, name) for scale, name in ((1, "s"), (1e3, "ms"), (1e6, "us")) if value * scale >= 1)
    return f"{value * scale:.3g} {name}"


def page(results: Mapping[str, Any]) -> str:
    """All that is said of the results."""
    machine = results["machine"]
    rounds = {len(next(iter(cases.values()))) for row in results["rows"].values() for cases in row["values"].values()}
    facts = [
        f"{machine['cpu']} ({', '.join(machine['instructions'])}), {machine['cores']} cores, "
        f"{machine['threads']} threads each",
        f"torch {machine['torch']}, " + (f"JAX {machine['jax']}" if machine["jax"] else "JAX is not installed"),
        f"commit {results['commit']}{' with changes' if results['dirty'] else ''}",
        f"{results['date']}, {' to '.join(str(count) for count in sorted({min(rounds), max(rounds)}))} rounds",
    ]
    return "\n\n".join(
        ["\n".join(f"- {fact}" for fact in facts), goals_table(results["rows"]), medians_table(results["rows"])]
    )


def filled(text: str, results: Mapping[str, Any]) -> str:
    """A page with the block between BEGIN and END made anew."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must hold {BEGIN.strip()} and {END}")
    return before + begin + page(results) + "\n" + end + after
