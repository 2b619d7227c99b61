"""One competitor in a process of its own: prepares its cases, then takes turns.

    python -m benchmarks.gpu.worker WHO GROUP SECONDS [DTYPE]

WHO may be a backend of fastdraw. It writes a line of JSON when it is ready, with what is prepared and, for what is not
after so many seconds, why. Then it answers every line it reads, the name of a case, with samples in seconds.
"""

import json
import signal
import sys
import time
from typing import Any

import torch

from benchmarks.gpu.cases import MODES, Timed, cases
from benchmarks.gpu.device import DRY, Call, captured, kernel_seconds, peak_bytes, wall_seconds
from fastdraw import dispatch


class OutOfTime(BaseException):
    """Not an Exception, so that no compiler takes it for a reason to try otherwise."""


def main(who: str, group: str, seconds: str, dtype: str = "") -> None:
    # The answers alone go to stdout, whatever compilers print.
    global answers
    answers, sys.stdout = sys.stdout, sys.stderr
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, float(seconds))
    torch._dynamo.config.recompile_limit = 1000  # one function is compiled for every case
    if who in dispatch.BACKENDS and DRY:
        dispatch.PREFERENCE["cpu"] = (who, "reference")  # the interpreter or the emulation in place of the GPU
    elif who in dispatch.BACKENDS:
        dispatch.backend(who).__enter__()  # to the end of the process
    ready: dict[str, Prepared] = {}
    left_out: dict[str, str] = {}
    made = {name: make for name, make in cases(group, who).items() if name.endswith(dtype)}
    try:
        for name, make in made.items():
            try:
                ready[name] = Prepared(make, graph=who not in MODES)
            except Exception as error:
                left_out[name] = _short(error)
    except OutOfTime:
        pass
    signal.setitimer(signal.ITIMER_REAL, 0)
    late = dict.fromkeys(made.keys() - ready.keys() - left_out.keys(), f"not ready after {float(seconds):g} s")
    answer({"cases": {name: each.facts for name, each in ready.items()}, "left_out": left_out | late})
    for line in sys.stdin:
        answer(ready[line.strip()].turn())


class Prepared:
    """A case that was called, and its CUDA graph."""

    def __init__(self, make: Any, graph: bool):
        timed: Timed = make()
        self.call = timed.call
        self.facts: dict[str, Any] = {"moved": timed.moved, "flops": timed.flops}
        start = time.perf_counter()
        self.facts["memory"] = peak_bytes(self.call)
        self.facts["first_calls_s"] = time.perf_counter() - start
        self.replay: Call | None = None
        try:
            # What torch.compile made may hold graphs of its own.
            self.replay = captured(self.call) if graph else None
        except Exception as error:
            self.facts["no_graph"] = _short(error)

    def turn(self) -> dict[str, list[float] | None]:
        """Wall time of a call and of its graph, and the GPU's time for the graph."""
        return {
            "wall": wall_seconds(self.call),
            "graph_wall": wall_seconds(self.replay) if self.replay else None,
            "kernel": kernel_seconds(self.replay) if self.replay else None,
        }


def _stop(*_: Any) -> None:
    raise OutOfTime


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True, file=answers)


answers = sys.stdout
assert dispatch.forced() is None, "FASTDRAW_BACKEND is set, and what is timed is each backend in turn"

if __name__ == "__main__":
    main(*sys.argv[1:])
