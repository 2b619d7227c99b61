"""`make gpu`: build, test and time fastdraw on this machine's GPU in under nine minutes, and write one results file.

Needs torch, triton, nvcc and pytest; no network. The file is rewritten after every stage, so that a run that is cut off
leaves what it had found. The exit status is 0 if the build, every test and every timing went through.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# In order of value, with the seconds that each may take: 510 in all.
BUILD = ("pip", "install", "-e", ".", "--no-build-isolation", "--no-deps")
BUILD_SECONDS = 180
TEST_FOLDERS = {"tests/kernels": 120, "tests/ops": 150}
TIMING_SECONDS = 60
REPORT_CHARACTERS = 4000  # of a failed command's output, or of one failed test


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, test and time fastdraw on this machine's GPU.")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results file")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    # The tests ask torch for deterministic algorithms, and cuBLAS then wants its workspace settled beforehand.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    results: dict[str, Any] = {"machine": machine(), "source": source(), "finished": False}
    name = re.sub(r"[^a-z0-9]+", "-", results["machine"]["gpu"].lower()).strip("-")
    path = arguments.out / f"{name}-{datetime.now(timezone.utc):%Y-%m-%d}.json"
    write_results(path, results)

    results["build"] = run("-m", *BUILD, seconds=BUILD_SECONDS)
    write_results(path, results)
    if results["build"]["outcome"] == "passed":
        results["tests"] = {}
        for folder, seconds in TEST_FOLDERS.items():
            results["tests"][folder] = run_tests(folder, seconds)
            write_results(path, results)
        results["timings"] = run_timings()
    results["finished"] = True
    write_results(path, results)

    print(summary(results))
    print(f"written to {path}")
    return 0 if succeeded(results) else 1


def machine() -> dict[str, Any]:
    """GPU, driver and versions; ends the program with one line where there is no GPU."""
    try:
        import torch
    except ImportError:
        sys.exit("make gpu: torch is not installed in this Python: install torch >= 2.11, built for CUDA")
    if not torch.cuda.is_available():
        sys.exit(
            f"make gpu: torch {torch.__version__} (CUDA {torch.version.cuda}) sees no CUDA device: run this on a "
            "machine with an NVIDIA GPU and its driver; `make test` needs none"
        )
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_mib": properties.total_memory >> 20,
        "driver": output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        "cuda": torch.version.cuda,
        "nvcc": nvcc.group(1) if (nvcc := re.search(r"V([\d.]+)", output_of("nvcc", "--version") or "")) else None,
        "python": platform.python_version(),
        **{package: installed(package) for package in ("torch", "triton", "numpy", "pytest")},
        "platform": platform.platform(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def source() -> dict[str, Any]:
    """The commit, and whether the files differ from it; None where this is no git checkout."""
    changes = output_of("git", "status", "--porcelain")
    return {"commit": output_of("git", "rev-parse", "HEAD"), "dirty": None if changes is None else changes != ""}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def output_of(*command: str) -> str | None:
    """What a tool prints, or None where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def run(*arguments: str, seconds: float) -> dict[str, Any]:
    """Run this Python with arguments, and stop it and all that it started when the time is up."""
    print(f"make gpu: python {' '.join(arguments)}", flush=True)
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        outcome = "passed" if process.returncode == 0 else "failed"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        outcome = f"stopped after {seconds} s"
    stage = {"outcome": outcome, "seconds": round(time.monotonic() - start, 1)}
    return stage if outcome == "passed" else stage | {"output": output[-REPORT_CHARACTERS:]}


def run_tests(folder: str, seconds: float) -> dict[str, Any]:
    """Run the tests of a folder that are marked `gpu`; outcome of every one of them."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "junit.xml")
        stage = run("-m", "pytest", "-q", "-m", "gpu", folder, f"--junit-xml={report}", seconds=seconds)
        return stage | (read_junit(report) if report.exists() else {"counts": {}, "tests": {}, "failures": {}})


def read_junit(report: Path) -> dict[str, Any]:
    """Counts by outcome, the outcome of every test, and what the failed ones said."""
    tests, failures = {}, {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        verdict = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        tests[name] = "passed" if verdict is None else verdict.tag
        if verdict is not None and verdict.tag != "skipped":
            failures[name] = (verdict.text or verdict.get("message") or "")[-REPORT_CHARACTERS:]
    outcomes = list(tests.values())
    return {
        "counts": {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))},
        "tests": tests,
        "failures": failures,
    }


def run_timings() -> dict[str, Any]:
    """The timings, in a process of their own: the editable install is not seen by a Python that was running before."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch, "timings.json")
        stage = run("-m", "benchmarks.gpu.lstm_gates", str(report), seconds=TIMING_SECONDS)
        return stage | {"rows": json.loads(report.read_text()) if report.exists() else []}


def succeeded(results: dict[str, Any]) -> bool:
    """Whether every stage passed; a folder of which no test ran did not."""
    stages = [results["build"], *results.get("tests", {}).values(), results.get("timings", {"outcome": "not run"})]
    return all(stage["outcome"] == "passed" for stage in stages) and all(
        stage["counts"].get("passed") for stage in results["tests"].values()
    )


def summary(results: dict[str, Any]) -> str:
    lines = [f"{results['machine']['gpu']}, driver {results['machine']['driver']}, torch {results['machine']['torch']}"]
    lines.append(
        f"commit {results['source']['commit'] or 'unknown'}{' with changes' if results['source']['dirty'] else ''}"
    )
    lines.append(f"build          {results['build']['outcome']}, {results['build']['seconds']} s")
    for folder, stage in results.get("tests", {}).items():
        counts = ", ".join(f"{count} {outcome}" for outcome, count in stage["counts"].items()) or "no test was reported"
        lines.append(f"{folder:<14} {stage['outcome']}, {stage['seconds']} s: {counts}")
        lines += [f"  {name}" for name in stage["failures"]]
    for row in results.get("timings", {}).get("rows", []):
        lines.append(
            f"{row['op']:<15} {row['backend']:<7} B{row['B']}-U{row['U']}-{row['dtype']:<9} "
            f"{row['median_us']:9.2f} us [{row['p20_us']:.2f}, {row['p80_us']:.2f}]  {row['gb_per_s']:7.1f} GB/s"
        )
    stages = [results["build"], *results.get("tests", {}).values(), *filter(None, [results.get("timings")])]
    lines += [stage["output"] for stage in stages if "output" in stage and not stage.get("failures")]
    return "\n".join(lines)


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as file:
        json.dump(results, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main())
