"""Backend "cuda" on the smallest and the largest case of every op, forward and backward: what a sanitizer watches."""

import sys
from contextlib import suppress

from fastdraw.dispatch import BackendError

from ..ops.cases import CASES, DTYPES, OPS, Case, runs
from ..ops.checking import float_tensors, of_tensors
from .machine import DEVICE, leaves_of, pass_through, synchronize


def size(case: Case) -> int:
    return sum(x.numel() for x in float_tensors(case.inputs()).values())


def main() -> int:
    calls = 0
    for op in OPS:
        cases = sorted((case for case in CASES if case.op == op), key=size)
        for dtype in DTYPES:
            for run in runs(op, dtype):
                if (run.backend, run.device) == ("cuda", DEVICE):
                    for case in (cases[0], cases[-1]):
                        arguments = case.inputs(dtype, DEVICE)
                        with suppress(BackendError):  # rollouts in float64
                            pass_through(of_tensors(run, arguments), leaves_of(arguments))
                            calls += 1
    synchronize()
    print(calls, "calls")
    return 0 if calls else 1


if __name__ == "__main__":
    sys.exit(main())
