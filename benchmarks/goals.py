"""Measure the goals of the CPU backend, print them with what was reached, and fill docs/cpu.md.

    python -m benchmarks.goals
    python -m benchmarks.goals --rows training-100,memory --peers eager,jax --rounds 5 --out results.json

All competitors of a row take turns. Rows that the results file holds already, of the same commit and machine, stay.
"""

import argparse
import json
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import report
from benchmarks.facts import foreign_seconds, machine, source
from benchmarks.interleave import LIMIT, interleaved, peak_memory
from benchmarks.work import Work
from fastdraw.files import write_atomically

PEERS = ("eager", "compile", "jax")


class Row(NamedTuple):
    kind: str
    work: Work
    competitors: tuple[str, ...]


ROWS = {
    "training-100": Row("training", Work(), ("ours", "floor", *PEERS)),
    "training-16": Row("training", Work(batch=16, digits=3, steps=30), ("ours", "floor", *PEERS)),
    "training-1": Row("training", Work(batch=1, digits=3, steps=30), ("ours", "floor", *PEERS)),
    "bfloat16": Row("training", Work(), ("ours", "bfloat16")),
    "bfloat16-1": Row("training", Work(batch=1, digits=3, steps=30), ("ours", "bfloat16")),
    "generate-1": Row("drawing", Work(batch=1, digits=3, steps=30), ("ours", *PEERS)),
    "generate-64": Row("drawing", Work(batch=64, digits=3, steps=30), ("ours", *PEERS)),
    "ops": Row("ops", Work(), ("ours", "eager")),
    "memory": Row("memory", Work(), ("ours", "eager")),
    "mixed": Row("training", Work(digits=4, steps=40, mixed=True), ("ours", "equal")),
}
assert ROWS.keys() == report.TITLES.keys()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=names(ROWS), default=tuple(ROWS), help=f"of {','.join(ROWS)}")
    parser.add_argument("--peers", type=names(PEERS), default=PEERS, help=f"of {','.join(PEERS)}; default: all")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every competitor (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: %(default)s")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for a compiler (default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=report.RESULTS, help="results file (default: docs/results/cpu.json)"
    )
    given = parser.parse_args(arguments)

    results = {**source(), "machine": machine(given.threads), "rows": kept_rows(given.out, given.threads)}
    for name in given.rows:
        kind, work, competitors = ROWS[name]
        print(f"measuring {name}", file=sys.stderr, flush=True)
        chosen = [each for each in competitors if each not in PEERS or each in given.peers or kind in ("ops", "memory")]
        start, foreign = time.monotonic(), foreign_seconds()
        if kind == "memory":
            row = peak_memory(chosen, work, given.rounds, given.threads)
        else:
            row = interleaved(kind, chosen, work, given.rounds, given.threads, given.limit)
        row["foreign_cores"] = (foreign_seconds() - foreign) / (time.monotonic() - start)
        results["rows"][name] = row
        results["date"] = datetime.now(timezone.utc).date().isoformat()
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(given.out, (json.dumps(results, indent=1) + "\n").encode())
    print(report.page(results))
    if given.out == report.RESULTS:
        report.fill()


def names(known: Any) -> Any:
    """Parse a comma-separated choice of the known names, none included."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(filter(None, text.split(",")))
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"no {name!r}: expected some of {','.join(known)}")
        return chosen

    return parse


def kept_rows(path: Path, threads: int) -> dict[str, Any]:
    """The rows of an earlier part of the same measurement."""
    if not path.exists():
        return {}
    earlier, now = json.loads(path.read_text()), {**source(), "machine": machine(threads)}
    same = not now["dirty"] and all(earlier.get(key) == value for key, value in now.items())
    return earlier["rows"] if same else {}


if __name__ == "__main__":
    main()
