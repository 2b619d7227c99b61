"""What `make gpu` found, as a short table for the terminal."""

from collections.abc import Sequence
from statistics import median
from statistics import quantiles as cut
from typing import Any

KINDS = ("wall", "graph_wall", "kernel")
PEERS = {"eager": "eager", "graph": "eager as a CUDA graph", "compile": "`torch.compile`"}
PEERS |= {"reduce-overhead": "`torch.compile`, reduce-overhead"}


def quantiles(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """p20, p50 and p80 of all samples, and the median of each turn; nothing where nothing was timed."""
    found = {}
    for kind in KINDS:
        rounds = [turn[kind] for turn in turns if turn[kind]]
        samples = [x for each in rounds for x in each]
        if samples:
            tenths = cut(samples, n=10, method="inclusive") if len(samples) > 1 else samples * 9
            found[kind] = {"p20": tenths[1], "p50": tenths[4], "p80": tenths[7], "rounds": [median(x) for x in rounds]}
    return found


def times(row: dict[str, Any], who: str, kind: str) -> dict[str, Any] | None:
    """The figures of a competitor; eager's graph is one of its own."""
    if who == "graph":
        return row.get("eager", {}).get("graph_wall" if kind == "wall" else kind)
    return row.get(who, {}).get(kind)


def ratio(row: dict[str, Any], who: str, kind: str = "wall", ours: str = "ours") -> float | None:
    """How many times as long `who` takes: the median over the rounds, in each of which both had their turn."""
    found = ratios(row, who, kind, ours)
    return median(found) if found else None


def ratios(row: dict[str, Any], who: str, kind: str, ours: str) -> list[float]:
    """The same in every round."""
    over, under = times(row, who, kind), times(row, ours, kind)
    return [a / b for a, b in zip(over["rounds"], under["rounds"], strict=False)] if over and under else []


def share_of_roof(facts: dict[str, Any], dtype: str, roof: dict[str, Any]) -> float | None:
    """The least time that bytes and products need on this machine, over the kernel time."""
    if "kernel" not in facts or not roof.get("copy_bytes_per_s"):
        return None
    moving = (facts["moved"] or 0) / roof["copy_bytes_per_s"]
    multiplying = (facts["flops"] or 0) / roof[f"{dtype}_flops_per_s"]
    return max(moving, multiplying) / facts["kernel"]["p50"]


def memory_ratio(row: dict[str, Any]) -> float | None:
    """Our peak over eager's."""
    ours, eager = (row.get(who, {}).get("memory") for who in ("ours", "eager"))
    return ours["allocated"] / eager["allocated"] if ours and eager and eager["allocated"] else None


def worst_ops(cases: dict[str, Any], kind: str = "wall") -> dict[str, tuple[float, str]]:
    """For every op and pass the least ratio of eager's time to ours, and its sizes and dtype."""
    found: dict[str, tuple[float, str]] = {}
    for case, row in cases.items():
        op, passes, *sizes = case.split()
        value = ratio(row, "eager", kind)
        if value is not None and value < found.get(f"{op} {passes}", (float("inf"), ""))[0]:
            found[f"{op} {passes}"] = value, " ".join(sizes)
    return found


def commit(source: dict[str, Any]) -> str:
    return f"{(source['commit'] or 'unknown')[:12]}{' with changes' if source['dirty'] else ''}"


def summary(results: dict[str, Any]) -> str:
    machine, source, build = results["machine"], results["source"], results["build"]
    lines = [f"{machine['gpu']}, driver {machine['driver']}, torch {machine['torch']}, Triton {machine['triton']}"]
    lines.append(f"commit {commit(source)}")
    if machine["not_installed"]:
        lines.append(f"not installed: {', '.join(machine['not_installed'])}")
    lines.append(f"build  {build['outcome']}, {build['seconds']} s")
    lines += [build["output"]] if "output" in build else []
    for stage, tests in ((stage, results[stage]) for stage in ("parity", "tests") if stage in results):
        counts = ", ".join(f"{count} {outcome}" for outcome, count in tests["counts"].items()) or "no test was reported"
        lines.append(f"{stage:<6} {tests['outcome']}, {tests['seconds']} s: {counts}")
        lines += [f"  {name}" for name in list(tests["failures"])[:30]]
        lines += [f"  and {more} more" for more in [len(tests["failures"]) - 30] if more > 0]
        lines += [tests["output"]] if "output" in tests else []
    timings = results.get("timings", {})
    roof = timings.get("roof", {})
    if "failed" in roof:
        lines.append(roof["failed"])
    if rollouts := timings.get("rollouts"):
        lines.append("rollouts                      ours, us        kernels  roof  memory  others over ours, wall time")
        for case, row in rollouts["cases"].items():
            lines.append(_line(case, row, roof))
    if ops := timings.get("ops"):
        lines.append("ops: eager over ours at the worst size: wall time, GPU time")
        kernels = worst_ops(ops["cases"], "kernel")
        for name, (value, sizes) in worst_ops(ops["cases"]).items():
            other = kernels.get(name)
            lines.append(
                f"  {name:<38} {value:6.2f} x ({sizes})  " + (f"{other[0]:6.2f} x ({other[1]})" if other else "")
            )
    if lstm := timings.get("lstm"):
        lines.append("cuDNN's LSTM, T steps, us")
        for case, row in lstm["cases"].items():
            kernel = times(row, "cudnn", "kernel")
            lines.append(f"  {case:<40} {_us(times(row, 'cudnn', 'wall'))} {_us(kernel)}")
    for group in ("rollouts", "compiled", "ops", "lstm"):
        for who, reasons in timings.get(group, {}).get("left_out", {}).items():
            lines += [f"left out: {who} {case}: {reason}" for case, reason in list(reasons.items())[:5]]
            lines += [f"left out: {who}: {len(reasons)} cases in all"] if len(reasons) > 5 else []
    return "\n".join(lines)


def _line(case: str, row: dict[str, Any], roof: dict[str, Any]) -> str:
    share, memory = share_of_roof(row.get("ours", {}), case.split()[-1], roof), memory_ratio(row)
    cells = [f"  {case:<26} {_us(times(row, 'ours', 'wall'))} {_us(times(row, 'ours', 'kernel'))}"]
    cells.append(f"{share:5.1%}" if share is not None else "     ")
    cells.append(f"{memory:5.2f} x" if memory is not None else "       ")
    cells += [f"{who} {value:.2f}" for who in PEERS if (value := ratio(row, who)) is not None]
    return "  ".join(cells)


def _us(found: dict[str, Any] | None) -> str:
    return f"{found['p50'] * 1e6:10.1f} [{found['p20'] * 1e6:.1f}, {found['p80'] * 1e6:.1f}]" if found else " " * 10
