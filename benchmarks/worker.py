"""One competitor in a process of its own: prepares its work, then times a call whenever it is asked to.

    python -m benchmarks.worker KIND NAME SIZES

It writes a line of JSON when it is ready, then answers every line it reads, the name of a case, with seconds per call.
"""

import ctypes
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.competitors import COMPETITORS, Prepare
from benchmarks.work import Work
from fastdraw import ops

TURN = 0.2  # seconds, or one call if that is longer
ONLY = "step"  # the one case of a competitor that has one

BACKENDS = {"ours": "cpu", "eager": "reference"}
ROWS_OF_THEIR_OWN = {"draw_rollout", "draw_generate"}


def main(kind: str, name: str, sizes: str) -> None:
    work = Work(**json.loads(sizes))
    if kind == "memory":
        answer(peak_bytes(COMPETITORS["training"][name], work))
        return
    if kind == "ops":
        cases = dict(op_cases(BACKENDS[name]))
        timed = {case.split()[0] for case in cases}
        missing = [op.name for op in ops.TABLE if "cpu" in op.backends and op.name not in timed | ROWS_OF_THEIR_OWN]
        answer({"cases": list(cases), "missing": missing})
    else:
        try:
            call = COMPETITORS[kind][name](work)
        except ModuleNotFoundError as error:
            answer({"left_out": f"{error.name} is not installed"})
            return
        start = time.perf_counter()
        call()
        answer({"cases": [ONLY], "first_call_s": time.perf_counter() - start})
        cases = {ONLY: partial(seconds_per_call, call)}
    for line in sys.stdin:
        answer(cases[line.strip()]())


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


def seconds_per_call(call: Callable[[], Any]) -> float:
    """The median over a turn, whose first call is not counted: others have used the caches in between."""
    call()
    times: list[float] = []
    end = time.perf_counter() + TURN
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


class Stopwatch:
    """Stands in for pytest-benchmark's fixture, so that the ops have one list of shapes."""

    def __init__(self, name: str) -> None:
        self.name, self.group, self.extra_info, self.seconds = name, "", dict[str, Any](), 0.0

    def __call__(self, call: Callable[[], Any]) -> None:
        self.seconds = seconds_per_call(call)


def op_cases(backend: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """Every case of the bench_*.py files that compares backends and has this one, as a function that times it."""
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        module = importlib.import_module(f"benchmarks.{path.stem}")
        for name, function in vars(module).items():
            marks = getattr(function, "pytestmark", []) if name.startswith("bench_") else []
            parameters = [list(parameter_sets(*mark.args)) for mark in marks if mark.name == "parametrize"]
            for chosen in product(*parameters):
                values: dict[str, Any] = {key: value for part in chosen for key, value in part.items()}
                if values.pop("backend", None) == backend:
                    sizes = " ".join(f"{key}={value}" for key, value in values.items() if key != "passes")
                    case = f"{name.removeprefix('bench_')} {values['passes']} {sizes}".rstrip()
                    yield case, partial(time_op, function, case, values | {"backend": backend})


def parameter_sets(names: str | tuple[str, ...], values: list[Any]) -> Iterator[dict[str, Any]]:
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else names
    for value in values:
        yield dict(zip(keys, value if len(keys) > 1 else [value], strict=True))


def time_op(function: Callable[..., None], case: str, values: dict[str, Any]) -> float:
    torch.manual_seed(0)
    stopwatch = Stopwatch(case)
    function(stopwatch, **values)
    return stopwatch.seconds


def peak_bytes(prepare: Prepare, work: Work) -> int:
    """The most memory that a step holds above weights and inputs, C++ and Python alike, as Linux counts it."""
    # A small step first: libraries and threads then have what they keep for ever.
    prepare(replace(work, batch=2, steps=2))()
    step = prepare(work)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status_bytes("VmRSS")
    result = step()
    peak = status_bytes("VmHWM") - before
    del result
    return peak


def status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
