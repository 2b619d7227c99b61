"""`make gpu`: build, test and time fastdraw on this machine's GPU in under nine minutes, and write one results file.

Needs torch, triton, nvcc and pytest; no network. The file is rewritten after every stage, so that a run that is cut off
leaves what it had found. The exit status is 0 if the build, every test and every timing went through.

`make gpu DRY=1` needs no GPU: the same stages in the same code, in Triton's interpreter and the emulation of the CUDA
kernels, at sizes of a few elements. It times nothing and writes no file.
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
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.gpu import report
from benchmarks.interleave import Competitor, LeftOut, kill, started

ROOT = Path(__file__).resolve().parents[2]
TOTAL_SECONDS = 520
BUILD = ("pip", "install", "-e", ".", "--no-build-isolation", "--no-deps")
DRY_BUILD = ("tests.emulation", "--version")  # of CUDA kernels for the host
EMULATED = ROOT / "build" / "emulated" / "emulated.so"
# What a torch or driver warns of, which nobody has seen yet, is no failure.
ON_GPU = ("-W", "default", "-m", "gpu")
PARITY = (*ON_GPU, "tests/ops/test_contract.py", "-k", "test_matches_reference and cuda-cuda")
# The shorter first, but for the sanitizer, each of whose tools has a process of its own.
SANITIZER = "tests/gpu/test_sanitizer.py"
TESTS = (*ON_GPU, "tests/gpu", "tests/kernels", "tests/test_tour.py", "tests/ops")
TESTS += ("-k", "not (test_matches_reference and cuda-cuda)", f"--ignore={SANITIZER}")
# A dry run has no tensors on a GPU, so of the tests that run everywhere it takes a few.
DRY_PARITY = ("--maxfail=5", "tests/ops/test_contract.py")
DRY_PARITY += ("-k", "test_matches_reference and lstm_gates-B2-U3 and not cpu")
DRY_TESTS = ("--maxfail=5", "-m", "gpu", "tests/gpu")
PATIENCE = 10  # of a dry run, which may be on any machine
# In order of value, with the seconds that each may take, and those that are kept free for it while others run.
SECONDS = {"build": (240, 0), "parity": (90, 60), "rollouts": (80, 45), "lstm": (20, 10), "tests": (200, 60)}
SECONDS |= {"compilers": (240, 0), "compiled": (60, 30), "ops": (90, 45)}
SHARES = max(1, min(12, (os.cpu_count() or 1) * 3 // 4))  # of the tests, side by side
GROUPS = {"rollouts": ("triton", "cuda", "eager"), "lstm": ("cudnn",)}
LATER_GROUPS = dict.fromkeys(("compiled", "ops"), ("triton", "cuda", "eager"))
# torch.compile takes minutes, so it begins while the tests run, in a process for each mode, group and dtype.
COMPILERS = [
    (who, group, dtype)
    for group in LATER_GROUPS
    for dtype in ("float32", "bfloat16")
    for who in ("reduce-overhead", "compile")
]
REFUSED = "BackendError"  # how a worker's reason begins where a backend says that it cannot run
KEPT_EVERY = 15  # seconds, of the outcomes of tests
ROUNDS = 5
REPORT_CHARACTERS = 4000  # of a failed command's output, or of one failed test
FULL_REPORTS = 50  # failed tests that say as much
OPTIONAL = "numpy", "ninja", "hypothesis", "pydantic", "safetensors", "tqdm", "matplotlib", "scipy", "torchvision"

Compilers = dict[tuple[str, str], list[Competitor]]  # by group and name


class Clock:
    """How long each stage may take, so that all of them end in time; `patience` times as long in all."""

    def __init__(self, patience: int = 1) -> None:
        self.patience = patience
        self.end = time.monotonic() + patience * TOTAL_SECONDS

    def seconds(self, stage: str) -> float:
        names = list(SECONDS)
        kept = self.patience * sum(SECONDS[later][1] for later in names[names.index(stage) + 1 :])
        return max(1.0, min(self.patience * SECONDS[stage][0], self.end - time.monotonic() - kept))


def main() -> int:
    parser = argparse.ArgumentParser(description="Build, test and time fastdraw on this machine's GPU.")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the results file")
    parser.add_argument("--dry", action="store_true", help="run everything small on the CPU, and measure nothing")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    # The tests ask torch for deterministic algorithms, and cuBLAS then wants its workspace settled beforehand.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("NVCC_APPEND_FLAGS", "--threads=4")  # the architectures of a file side by side
    if arguments.dry:
        os.environ |= {"FASTDRAW_GPU_DRY": "1", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}

    results: dict[str, Any] = {"machine": machine(arguments.dry), "source": source(), "finished": False}
    name = re.sub(r"[^a-z0-9]+", "-", results["machine"]["gpu"].lower()).strip("-")
    path = arguments.out / f"{name}-{datetime.now(timezone.utc):%Y-%m-%d}.json"

    def keep() -> None:
        if not arguments.dry:
            write_results(path, results)

    keep()
    clock = Clock(PATIENCE if arguments.dry else 1)
    with ExitStack() as stack:
        results["build"] = run("-m", *(DRY_BUILD if arguments.dry else BUILD), seconds=clock.seconds("build"))
        if arguments.dry and EMULATED.exists():
            os.environ["FASTDRAW_EMULATED"] = str(EMULATED)
        keep()
        if results["build"]["outcome"] == "passed":
            for stage, found in measure(stack, clock, arguments.dry):
                results[stage] = results.get(stage, {}) | found
                keep()
    results["finished"] = True
    keep()

    from benchmarks.gpu.defaults import with_ours  # not before it is known that there is torch

    print(report.summary(with_ours(results)))
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


def measure(stack: ExitStack, clock: Clock, dry: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """What was found, piece by piece, and the stage that it belongs to.

    First what most hangs on: whether the kernels in CUDA C++ are right, and how fast the rollouts are.
    """
    rounds = 1 if dry else ROUNDS
    parity = [DRY_PARITY] if dry else [PARITY] * SHARES
    for found in run_tests(parity, clock.seconds("parity")):
        yield "parity", found
    print("make gpu: the roof", flush=True)
    yield "timings", {"roof": roof()}
    for group, names in GROUPS.items():
        for found in run_timings(group, names, {}, clock, rounds):
            yield "timings", {group: found}

    compilers = start_compilers(stack, clock, dry)
    sanitizers = [(*ON_GPU, SANITIZER, "-k", tool) for tool in ("memcheck", "racecheck", "synccheck")]
    tests = [DRY_TESTS] if dry else [TESTS] * SHARES + sanitizers
    for found in run_tests(tests, clock.seconds("tests")):
        yield "tests", found
    print("make gpu: waiting for torch.compile", flush=True)
    ready = {key: [settled(player) for player in players] for key, players in compilers.items()}
    for group, names in LATER_GROUPS.items():
        for found in run_timings(group, names, ready, clock, rounds):
            yield "timings", {group: found}


def run_tests(shares: Sequence[Sequence[str]], seconds: float) -> Iterator[dict[str, Any]]:
    """Run tests side by side, those that are equal being shares of one; what every test has said so far."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        processes, logs = [], []
        for number, chosen in enumerate(shares):
            share = f"{shares[:number].count(chosen)}/{shares.count(chosen)}"
            environment = os.environ | {"FASTDRAW_SHARE": share, "FASTDRAW_OUTCOMES": f"{scratch}/{number}.jsonl"}
            command = ["-m", "pytest", "-q", "-p", "benchmarks.gpu.shard", "-p", "no:cacheprovider", *chosen]
            print(f"make gpu: share {share}: python {' '.join(command)}", flush=True)
            log = stack.enter_context(Path(scratch, f"{number}.log").open("w+"))
            environment["OMP_NUM_THREADS"] = "1"
            processes.append(stack.enter_context(background(command, environment, log)))
            logs.append(log)
        outcome = "running"
        while outcome == "running":
            pause = min(start + seconds, time.monotonic() + KEPT_EVERY)
            for process in processes:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, pause - time.monotonic()))
            codes = [process.poll() for process in processes]
            if None not in codes:
                # Of a small share the marks may leave nothing, which pytest calls status 5.
                outcome = "passed" if {*codes} <= {0, 5} else "failed"
            elif time.monotonic() >= start + seconds:
                outcome = f"stopped after {seconds:.0f} s"
            found = read_outcomes(sorted(Path(scratch).glob("*.jsonl")))
            stage = {"outcome": outcome, "seconds": round(time.monotonic() - start, 1), **found}
            if outcome not in ("passed", "running") and not found["failures"]:
                for log in logs:
                    log.seek(0)
                stage["output"] = "\n".join(log.read()[-REPORT_CHARACTERS:] for log in logs)
            yield stage


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
    """Counts by outcome, by file and by op and backend, what the failed tests said, why others were skipped."""
    tests: dict[str, str] = {}
    seconds: dict[str, float] = {}
    failures: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    runs: dict[str, Counter[str]] = {}
    whole = [line for file in files for line in file.read_text().split("\n")[:-1]]
    for row in map(json.loads, whole):
        name = row["test"]
        seconds[name] = seconds.get(name, 0.0) + row["seconds"]
        if tests.get(name) not in ("failed", "error"):
            tests[name] = row["outcome"]
        if row["run"]:
            runs.setdefault(row["run"], Counter())[row["outcome"]] += 1
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
        "runs": runs,
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


def run_timings(group: str, names: Sequence[str], ready: Any, clock: Clock, rounds: int) -> Iterator[dict[str, Any]]:
    """Every competitor in turns, and those of torch.compile that are ready for the group; what was found so far."""
    print(f"make gpu: timing {group}", flush=True)
    start, seconds = time.monotonic(), clock.seconds(group)
    with ExitStack() as stack:
        own = {}
        for who in names:
            module = ["benchmarks.gpu.worker", who, group, str(seconds / 2)]
            own[who] = stack.enter_context(started(module, {}, seconds / 2 + 30))
        players = {who: [settled(player)] for who, player in own.items()}
        players |= {who: found for (of, who), found in ready.items() if of == group}
        yield from in_turns(players, rounds, start + seconds)
    for player in (player for (of, _), found in ready.items() if of == group for player, _ in found):
        kill(player.process)


def settled(player: Competitor) -> tuple[Competitor, dict[str, Any]]:
    """A competitor with what it is ready for."""
    try:
        return player, player.answer()
    except LeftOut as reason:
        return player, {"cases": {}, "left_out": {"all": str(reason)}}


def in_turns(
    players: dict[str, list[tuple[Competitor, dict[str, Any]]]], rounds: int, end: float
) -> Iterator[dict[str, Any]]:
    """Each competitor once for every case and round, forth and back, until the time is up; what there is so far."""
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
        yield {"seconds": round(time.monotonic() - start, 1), "cases": cases, "left_out": left_out}


def roof() -> dict[str, Any]:
    """In a process of its own: this one leaves the GPU to others."""
    code = "import json; from benchmarks.gpu.device import roof; print(json.dumps(roof()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr[-REPORT_CHARACTERS:]}


def succeeded(results: dict[str, Any]) -> bool:
    """Whether the build passed, and tests, and none failed, and every case was timed that a backend does not refuse."""
    timings = results.get("timings", {})
    if results["build"]["outcome"] != "passed" or "failed" in timings.get("roof", {"failed": ""}):
        return False
    for stage in (results.get("parity"), results.get("tests")):
        if not stage or stage["outcome"] != "passed" or not stage["counts"].get("passed"):
            return False
    groups = [timings.get(group) for group in (*GROUPS, *LATER_GROUPS)]
    return all(group and group["cases"] for group in groups) and not any(
        not reason.startswith(REFUSED)
        for group in groups
        for who in ("triton", "cuda", "eager")
        for reason in group["left_out"].get(who, {}).values()
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
