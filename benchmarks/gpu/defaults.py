"""Which GPU backend is the default from now on, by what `make gpu` measured: writes fastdraw/defaults.json.

    python -m benchmarks.gpu.defaults benchmarks/results/RESULTS.json

An op on backend "cuda" is the default if its tests passed in that run, and if it was faster than on "triton" in every
round of every case, in wall time and in GPU time alike. A batch size that was measured speaks for those from it up to
the next one, the smallest also for those below. What stands in the table for GPUs of other compute capabilities stays.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import commit, ratio, ratios
from benchmarks.harness import B
from fastdraw import defaults, dispatch
from fastdraw.defaults import Row
from fastdraw.errors import FastdrawError
from fastdraw.files import write_atomically

KINDS = ("wall", "kernel")
ROLLOUTS = {"training": "draw_rollout", "forward": "draw_rollout", "drawing": "draw_generate"}
LEAST_ROUNDS = 3

Work = tuple[str, str, int]  # op, dtype, batch


def work_of(case: str) -> Work:
    """What a case measures: `training B=128 float32`, `draw_read forward n=8 float32`."""
    name, *others, dtype = case.split()
    sizes = dict(word.split("=") for word in others if "=" in word)
    return ROLLOUTS.get(name, name), dtype, int(sizes.get("B", B))


def rows(results: dict[str, Any]) -> list[Row]:
    """The table for the GPU of these results; what does not count is left out, and said on stderr."""
    timings, about = results.get("timings", {}), results["machine"]
    found: dict[Work, dict[str, Any]] = {}
    for group in ("rollouts", "ops"):
        for case, row in timings.get(group, {}).get("cases", {}).items():
            found.setdefault(work_of(case), {})[case] = row
    made = []
    for (op, dtype, batch), cases in sorted(found.items()):
        why = doubt(op, cases, results)
        if why:
            print(f"left out: {op} {dtype} B={batch}: {why}", file=sys.stderr)
            continue
        larger = [other for name, of, other in found if (name, of) == (op, dtype) and other > batch]
        smaller = [other for name, of, other in found if (name, of) == (op, dtype) and other < batch]
        faster = all(min(ratios(row, "triton", kind, "cuda")) > 1 for row in cases.values() for kind in KINDS)
        least = min(ratio(row, "triton", kind, "cuda") for row in cases.values() for kind in KINDS)
        made.append(
            Row(
                op, dtype, batch if smaller else 0, min(larger) - 1 if larger else None, "cuda" if faster else "triton",
                round(least, 3), about["gpu"], about["capability"], commit(results["source"]),
            )
        )  # fmt: skip
    return made


def doubt(op: str, cases: dict[str, Any], results: dict[str, Any]) -> str | None:
    """Why these cases decide nothing, if so."""
    counts = [results.get(stage, {}).get("runs", {}).get(f"{op} cuda", {}) for stage in ("parity", "tests")]
    if results.get("parity", {}).get("outcome") not in ("passed", "failed") or not counts[0].get("passed"):
        return "it was not compared with the reference"
    if any(each.get(outcome) for each in counts for outcome in ("failed", "error")):
        return "a test failed"
    for case, row in cases.items():
        if any(len(ratios(row, "triton", kind, "cuda")) < LEAST_ROUNDS for kind in KINDS):
            return f"fewer than {LEAST_ROUNDS} rounds of {case} on both backends"
    return None


def with_ours(results: dict[str, Any]) -> dict[str, Any]:
    """The same results, where the figures of the backend that is now the default are also called `ours`.

    A rollout that was timed again beside torch.compile's counts as it was then.
    """
    timings = results.get("timings", {})
    if "rollouts" in timings:
        timings["rollouts"]["cases"] |= timings.get("compiled", {}).get("cases", {})
    for group in ("rollouts", "ops"):
        for case, row in timings.get(group, {}).get("cases", {}).items():
            row["ours"] = row.get(default(case, results["machine"].get("capability")), {})
    return results


def default(case: str, capability: str | None) -> str:
    op, *work = work_of(case)
    measured = [row for row in defaults.table() if (row.op, row.capability) == (op, capability)]
    return next((row.backend for row in measured if row.counts_for(*work)), dispatch.PREFERENCE["cuda"][0])


def read_results(path: Path) -> dict[str, Any]:
    """What `make gpu` wrote.

    Raises:
        FastdrawError: it is no such file.
    """
    try:
        results = json.loads(path.read_text())
        if results["machine"]["gpu"] and results["machine"]["capability"] and results["source"]:
            return results
    except OSError as error:
        raise FastdrawError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError):
        pass
    raise FastdrawError(f"{path} is no results file of `make gpu`: it names no GPU, or no source")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="what `make gpu` wrote, in benchmarks/results")
    results = read_results(parser.parse_args(arguments).results)
    made, capability = rows(results), results["machine"]["capability"]
    kept = [row for row in defaults.table() if row.capability != capability]
    lines = [json.dumps(row._asdict()) for row in kept + made]
    write_atomically(defaults.FILE, ("[" + ",".join(f"\n {line}" for line in lines) + "\n]\n").encode())
    print("\n".join(map(str, made)))


if __name__ == "__main__":
    try:
        main()
    except FastdrawError as error:
        sys.exit(f"fastdraw: error: {error}")
