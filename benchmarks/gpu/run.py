"""`make gpu`: build, test and time fastdraw on this machine's GPU in under nine minutes, and write one results file.

Needs torch, triton, nvcc and pytest; no network. The file is rewritten after every stage, so that a run that is cut off
leaves what it had found. The exit status is 0 if the build, every test and every timing went through.

`make gpu DRY=1` needs no GPU: the same stages in the same code, on the CPU and in Triton's interpreter, at sizes of a
few elements. It times nothing, builds nothing and writes no file.
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
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu import report
from benchmarks.interleave import Competitor, LeftOut, kill, started

ROOT = Path(__file__).resolve().parents[2]
TOTAL_SECONDS = 520
BUILD = ("pip", "install", "-e", ".", "--no-build-isolation", "--no-deps")
# The shorter first. What a torch or driver warns of, which nobody has seen yet, is no failure.
TESTS = ("-W", "default", "tests/gpu", "tests/kernels", "tests/test_tour.py", "tests/ops")
# A dry run has no tensors on a GPU, so of the tests that run everywhere it takes a few.
DRY_TESTS = (("tests/gpu", "-m", "gpu"), ("tests/ops/test_contract.py", "-k", "triton and B2-U3 and matches"))
# In order of value, with the seconds that each may take, and those that are kept free for it while others run.
SECONDS = {"build": (240, 0), "tests": (240, 90), "compilers": (240, 0), "rollouts": (100, 60), "ops": (90, 45)}
SECONDS |= {"lstm": (30, 10)}
SHARES = max(1, min(12, (os.cpu_count() or 1) * 3 // 4))  # of the tests, side by side
GROUPS = {"rollouts": ("ours", "eager"), "ops": ("ours", "eager"), "lstm": ("cudnn",)}
# torch.compile takes minutes, so it begins while the tests run, in a process for each mode, group and dtype.
COMPILERS = [
    (who, group, dtype)
    for group in ("rollouts", "ops")
    for dtype in ("float32", "bfloat16")
    for who in ("reduce-overhead", "compile")
]
ROUNDS = 5
REPORT_CHARACTERS = 4000  # of a failed command's output, or of one failed test
FULL_REPORTS = 50  # failed tests that say as much
OPTIONAL = "numpy", "ninja", "hypothesis", "pydantic", "safetensors", "tqdm", "matplotlib", "scipy", "torchvision"

Compilers = dict[tuple[str, str], list[Competitor]]  # by group and name


class Clock:
    """How long each stage may take, so that all of them end in time."""

    def __init__(self) -> None:
        self.end = time.monotonic() + TOTAL_SECONDS

    def seconds(self, stage: str) -> float:
        names = list(SECONDS)
        kept = sum(SECONDS[later][1] for later in names[names.index(stage) + 1 :])
        return max(1.0, min(SECONDS[stage][0], self.end - time.monotonic() - kept))


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, test and time fastdraw on this machine's GPU.")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results file")
    parser.add_argument("--dry", action="store_true", help="run everything small on the CPU, and measure nothing")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    # The tests ask torch for deterministic algorithms, and cuBLAS then wants its workspace settled beforehand.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if arguments.dry:
        os.environ |= {"FASTDRAW_GPU_DRY": "1", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}

    results: dict[str, Any] = {"machine": machine(arguments.dry), "source": source(), "finished": False}
    name = re.sub(r"[^a-z0-9]+", "-", results["machine"]["gpu"].lower()).strip("-")
    path = arguments.out / f"{name}-{datetime.now(timezone.utc):%Y-%m-%d}.json"

    def keep() -> None:
        if not arguments.dry:
            write_results(path, results)

    keep()
    clock = Clock()
    with ExitStack() as stack:
        build = ("-c", "from fastdraw import extension as e; print(e.load())") if arguments.dry else ("-m", *BUILD)
        results["build"] = run(*build, seconds=clock.seconds("build"))
        keep()
        if results["build"]["outcome"] == "passed":
            compilers = start_compilers(stack, clock, arguments.dry)
            results["tests"] = run_tests(clock.seconds("tests"), arguments.dry)
            keep()
            results["timings"] = {}
            for each in run_timings(compilers, clock, 1 if arguments.dry else ROUNDS):
                results["timings"] |= each
                keep()
    results["finished"] = True
    keep()

    print(report.summary(results))
    if arguments.dry:
        print(f"dry run: {'everything ran' if succeeded(results) else 'NOT everything ran'}, and nothing was measured")
    else:
        print(f"written to {path}")
    return 0 if succeeded(results) else 1


def machine(dry: bool = False) -> dict[str, Any]:
    """GPU, driver and versions; ends the program with one line where there is no GPU."""
    try:
        import torch
    except ImportError:
        sys.exit("make gpu: torch is not installed in this Python: install torch >= 2.11, built for CUDA")
    if not torch.cuda.is_available() and not dry:
        sys.exit(
            f"make gpu: torch {torch.__version__} (CUDA {torch.version.cuda}) sees no CUDA device: run this on a "
            "machine with an NVIDIA GPU and its driver; `make test` needs none, nor does `make gpu DRY=1`"
        )
    device = {"gpu": "none"}
    if not dry:
        properties = torch.cuda.get_device_properties(0)
        device = {
            "gpu": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_mib": properties.total_memory >> 20,
        }
    return {
        **device,
        "driver": output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"),
        "cuda": torch.version.cuda,
        "nvcc": nvcc.group(1) if (nvcc := re.search(r"V([\d.]+)", output_of("nvcc", "--version") or "")) else None,
        "python": platform.python_version(),
        **{package: installed(package) for package in ("torch", "triton", "pytest")},
        "not_installed": [package for package in OPTIONAL if installed(package) is None],
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


def run_tests(seconds: float, dry: bool) -> dict[str, Any]:
    """Run the tests that are marked `gpu`, in shares side by side; what every one of them said."""
    shares = [(*choice, "--maxfail=5") for choice in DRY_TESTS] if dry else [(*TESTS, "-m", "gpu")] * SHARES
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        processes, logs = [], []
        for number, chosen in enumerate(shares):
            share = "0/1" if dry else f"{number}/{len(shares)}"
            environment = os.environ | {"FASTDRAW_SHARE": share, "FASTDRAW_OUTCOMES": f"{scratch}/{number}.jsonl"}
            command = ["-m", "pytest", "-q", "-p", "benchmarks.gpu.shard", "-p", "no:cacheprovider", *chosen]
            print(f"make gpu: share {share}: python {' '.join(command)}", flush=True)
            log = stack.enter_context(Path(scratch, f"{number}.log").open("w+"))
            environment["OMP_NUM_THREADS"] = "1"
            processes.append(stack.enter_context(background(command, environment, log)))
            logs.append(log)
        outcomes = []
        for process in processes:
            try:
                process.wait(max(0.1, start + seconds - time.monotonic()))
                # Of a small share the marks may leave nothing, which pytest calls status 5.
                outcomes.append("passed" if process.returncode in (0, 5) else "failed")
            except subprocess.TimeoutExpired:
                kill(process)
                outcomes.append(f"stopped after {seconds:.0f} s")
        found = read_outcomes(sorted(Path(scratch).glob("*.jsonl")))
        outcome = next((each for each in outcomes if each != "passed"), "passed")
        stage = {"outcome": outcome, "seconds": round(time.monotonic() - start, 1), **found}
        if outcome != "passed" and not found["failures"]:
            for log in logs:
                log.seek(0)
            stage["output"] = "\n".join(log.read()[-REPORT_CHARACTERS:] for log in logs)
        return stage


@contextmanager
def background(arguments: Sequence[str], environment: dict[str, str], log: Any) -> Iterator[subprocess.Popen[str]]:
    """This Python with arguments, until the block ends."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=environment,
        text=True,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            kill(process)


def read_outcomes(files: Sequence[Path]) -> dict[str, Any]:
    """Counts by outcome and by file, what the failed tests said, why others were skipped, and the slowest."""
    tests: dict[str, str] = {}
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    for row in (json.loads(line) for file in files for line in file.read_text().splitlines()):
        name = row["test"]
        seconds[name] = seconds.get(name, 0.0) + row["seconds"]
        if tests.get(name) not in ("failed", "error"):
            tests[name] = row["outcome"]
        if row["outcome"] in ("failed", "error"):
            failures[name] = row["text"][-(REPORT_CHARACTERS if len(failures) < FULL_REPORTS else 200) :]
        elif row["outcome"] == "skipped":
            skipped[row["text"]] += 1
    by_file: dict[str, Counter[str]] = {}
    for name, outcome in tests.items():
        by_file.setdefault(name.split("::")[0], Counter())[outcome] += 1
    return {
        "counts": Counter(tests.values()),
        "files": by_file,
        "failures": failures,
        "skipped": skipped,
        "slowest": dict(sorted(seconds.items(), key=lambda pair: -pair[1])[:20]),
    }


def start_compilers(stack: ExitStack, clock: Clock, dry: bool) -> Compilers:
    """Processes that compile while the tests run, by group and name."""
    chosen = COMPILERS[:1] + COMPILERS[-1:] if dry else COMPILERS
    seconds = clock.seconds("compilers")
    found: Compilers = {}
    for who, group, dtype in chosen:
        player = started(
            ["benchmarks.gpu.worker", who, group, str(seconds), dtype],
            {"TORCHINDUCTOR_COMPILE_THREADS": "2", "OMP_NUM_THREADS": "1"},
            seconds + 30,
        )
        found.setdefault((group, who), []).append(stack.enter_context(player))
    return found


def run_timings(compilers: Compilers, clock: Clock, rounds: int) -> Iterator[dict[str, Any]]:
    """What was found, piece by piece: the roof, then group by group every competitor in turns."""
    print("make gpu: waiting for torch.compile", flush=True)
    ready = {(group, who): [settled(player) for player in players] for (group, who), players in compilers.items()}
    print("make gpu: the roof", flush=True)
    yield {"roof": roof()}
    for group, names in GROUPS.items():
        print(f"make gpu: timing {group}", flush=True)
        start, seconds = time.monotonic(), clock.seconds(group)
        with ExitStack() as stack:
            own = {}
            for who in names:
                module = ["benchmarks.gpu.worker", who, group, str(seconds / 2)]
                own[who] = stack.enter_context(started(module, {}, seconds / 2 + 30))
            players = {who: [settled(player)] for who, player in own.items()}
            players |= {who: found for (of, who), found in ready.items() if of == group}
            yield {group: in_turns(players, rounds, start + seconds)}
        for (of, _), found in compilers.items():
            for player in found if of == group else ():
                kill(player.process)


def settled(player: Competitor) -> tuple[Competitor, dict[str, Any]]:
    """A competitor with what it is ready for."""
    try:
        return player, player.answer()
    except LeftOut as reason:
        return player, {"cases": {}, "left_out": {"all": str(reason)}}


def in_turns(players: dict[str, list[tuple[Competitor, dict[str, Any]]]], rounds: int, end: float) -> dict[str, Any]:
    """In every round each competitor once for every case, forth and back, until the time is up."""
    start = time.monotonic()
    turns: dict[str, dict[str, list[dict[str, Any]]]] = {}
    facts: dict[str, dict[str, Any]] = {}
    left_out: dict[str, dict[str, str]] = {}
    by_case: dict[str, dict[str, Competitor]] = {}
    for who, found in players.items():
        for player, ready in found:
            left_out.setdefault(who, {}).update(ready["left_out"])
            for case, about in ready["cases"].items():
                by_case.setdefault(case, {})[who] = player
                facts.setdefault(case, {})[who] = about
    for number in range(rounds):
        for case, who_plays in by_case.items():
            if number and time.monotonic() > end:
                break
            for who in list(who_plays)[:: 1 if number % 2 == 0 else -1]:
                try:
                    turns.setdefault(case, {}).setdefault(who, []).append(who_plays[who].turn(case))
                except (LeftOut, OSError) as reason:
                    left_out[who][case] = f"in a turn: {reason}"
                    turns[case].pop(who, None)
                    del who_plays[who]
    cases = {
        case: {who: facts[case][who] | report.quantiles(found) for who, found in whose.items() if found}
        for case, whose in turns.items()
    }
    return {"seconds": round(time.monotonic() - start, 1), "cases": cases, "left_out": left_out}


def roof() -> dict[str, Any]:
    """In a process of its own: this one leaves the GPU to others."""
    code = "import json; from benchmarks.gpu.device import roof; print(json.dumps(roof()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-REPORT_CHARACTERS:]}


def succeeded(results: dict[str, Any]) -> bool:
    """Whether the build passed, and tests, and none failed, and every case of ours was timed."""
    timings = results.get("timings", {})
    if results["build"]["outcome"] != "passed" or "failed" in timings.get("roof", {"failed": ""}):
        return False
    if results["tests"]["outcome"] != "passed" or not results["tests"]["counts"].get("passed"):
        return False
    groups = [timings.get(group) for group in GROUPS]
    return all(group and group["cases"] for group in groups) and not any(
        reason for group in groups for who in ("ours", "eager") for reason in group["left_out"].get(who, {})
    )


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
