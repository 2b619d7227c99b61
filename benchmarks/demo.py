"""How much faster the demo trains than at an earlier commit, and than in plain PyTorch: docs/results/demo/speed.json.

    python -m benchmarks.demo --before 16e3bfc

The earlier commit is built in a folder that is removed afterwards. All train the demo's settings in turns, and the
time of a step is what the run's own record says, without its start: optimiser, data and averages are in it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from statistics import median, quantiles

from benchmarks.facts import machine, source
from benchmarks.interleave import ROOT
from fastdraw.files import write_atomically

RESULTS = ROOT / "docs" / "results" / "demo" / "speed.json"
START, STEPS = 10, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=7, help="turns of everyone (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="results file (default: docs/results/demo/speed.json)"
    )
    given = parser.parse_args()

    seconds: dict[str, list[float]] = {"now": [], "before": [], "eager": []}
    with built(given.before) as before:
        for _ in range(given.rounds):
            seconds["now"].append(step_seconds(ROOT, given.threads))
            seconds["before"].append(step_seconds(before, given.threads))
            seconds["eager"].append(step_seconds(ROOT, given.threads, FASTDRAW_BACKEND="reference"))
    results = {
        **source(),
        "before": given.before,
        "machine": machine(given.threads),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "seconds": seconds,
        "faster": {
            name: ratio([slow / fast for slow, fast in zip(seconds[name], seconds["now"], strict=True)])
            for name in ("before", "eager")
        },
    }
    write_atomically(given.out, (json.dumps(results, indent=1) + "\n").encode())
    print(json.dumps(results["faster"], indent=1))


def ratio(values: list[float]) -> dict[str, float]:
    low, _, high = quantiles(values, n=4)
    return {"median": median(values), "low": low, "high": high}


@contextmanager
def built(commit: str) -> Iterator[Path]:
    """A commit with its CPU kernels, in a folder that lasts as long as the block."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(("git", "worktree", "add", "--detach", tree, commit), cwd=ROOT, check=True, capture_output=True)
        try:
            command = (sys.executable, "setup.py", "build_ext", "--inplace")
            subprocess.run(
                command, cwd=tree, env=os.environ | {"FASTDRAW_CUDA": "0"}, check=True, stdout=subprocess.DEVNULL
            )
            (tree / "fastdraw" / "kernels").symlink_to(tree / "kernels")  # as pip installs it
            yield tree
        finally:
            subprocess.run(("git", "worktree", "remove", "--force", tree), cwd=ROOT, check=True, capture_output=True)


def step_seconds(tree: Path, threads: int, **settings: str) -> float:
    """Seconds of one training step of the demo's settings."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = ("--steps", str(STEPS), "--log-every", str(START), "--threads", str(threads), "--out", str(run))
        command = (sys.executable, "-m", "fastdraw.cli", "train", "--preset", "demo", *options)
        environment = os.environ | {"PYTHONPATH": str(tree)} | settings
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    at = {row["step"]: row["seconds"] for row in rows if row["split"] == "train"}
    return (at[STEPS] - at[START]) / (STEPS - START)


if __name__ == "__main__":
    main()
