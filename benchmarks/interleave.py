"""Competitors that take turns: the speed of a shared machine drifts, and then drifts for all of them alike."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.work import Work

ROOT = Path(__file__).parents[1]
LIMIT = 900.0  # seconds for a competitor to get ready, and for a turn

Samples = dict[str, dict[str, list[float]]]  # by competitor and case


class LeftOut(Exception):
    """Why a competitor does not take part."""


class Competitor:
    """A process of `benchmarks.worker`."""

    def __init__(self, process: subprocess.Popen[str], errors: Any, limit: float) -> None:
        self.process, self.errors, self.limit = process, errors, limit

    def answer(self) -> Any:
        """Its next line; raises LeftOut where it ends or the time is up before."""
        assert self.process.stdout is not None
        late = threading.Event()

        def stop() -> None:
            late.set()
            kill(self.process)

        timer = threading.Timer(self.limit, stop)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines() or ["it ended without a word"]
            raise LeftOut(f"stopped after {self.limit:g} s" if late.is_set() else said[-1])
        return json.loads(line)

    def turn(self, case: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        return self.answer()


def kill(process: subprocess.Popen[str]) -> None:
    """End it and what it started: torch.compile has helpers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def competitor(kind: str, name: str, work: "Work", threads: int, limit: float = LIMIT) -> Iterator[Competitor]:
    """Start a `benchmarks.worker` with so many threads, which do not spin while others run."""
    count = str(threads)
    settings = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "NPROC": count, "GOMP_SPINCOUNT": "10000"}
    with started(["benchmarks.worker", kind, name, json.dumps(asdict(work))], settings, limit) as player:
        yield player


@contextmanager
def started(module: Sequence[str], settings: Mapping[str, str], limit: float) -> Iterator[Competitor]:
    """Start a module of Python that answers line by line, with no compiled code cached."""
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, "-m", *module]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
        environment = os.environ | dict(settings) | {"TORCHINDUCTOR_CACHE_DIR": cache}
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, start_new_session=True, **pipes
        ) as process:
            try:
                yield Competitor(process, errors, limit)
            finally:
                kill(process)


def interleaved(
    kind: str, names: Sequence[str], work: "Work", rounds: int, threads: int, limit: float = LIMIT
) -> dict[str, Any]:
    """Seconds per call of every competitor, case and round, what each first call took, and why some are left out."""
    samples: Samples = {}
    first_call, left_out = {}, {}
    with ExitStack() as stack:
        players = {}
        for name in names:
            player = stack.enter_context(competitor(kind, name, work, threads, limit))
            try:
                ready = player.answer()
                if "left_out" in ready:
                    raise LeftOut(ready["left_out"])
            except LeftOut as reason:
                left_out[name] = str(reason)
                continue
            players[name] = player
            if "first_call_s" in ready:
                first_call[name] = ready["first_call_s"]
            left_out |= dict.fromkeys(ready.get("missing", []), "no kernel or no benchmark")
            samples[name] = {case: [] for case in ready["cases"]}
        cases = [case for case in next(iter(samples.values()), {}) if all(case in found for found in samples.values())]
        for number in range(rounds):
            for case in cases:
                # There and back again, so that nobody always comes after the same one.
                for name in list(players)[:: 1 if number % 2 == 0 else -1]:
                    samples[name][case].append(players[name].turn(case))
    values = {name: {case: found[case] for case in cases} for name, found in samples.items()}
    return {"unit": "s", "values": values, "first_call_s": first_call, "left_out": left_out}


def peak_memory(names: Sequence[str], work: "Work", rounds: int, threads: int) -> dict[str, Any]:
    """Bytes of a training step above weights and inputs, each time in a fresh process."""
    values: Samples = {name: {"step": []} for name in names}
    for _ in range(rounds):
        for name in names:
            with competitor("memory", name, work, threads) as player:
                values[name]["step"].append(player.answer())
    return {"unit": "bytes", "values": values, "first_call_s": {}, "left_out": {}}
