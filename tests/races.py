"""No block of a persistent rollout reads what another has not yet handed over at a barrier: ThreadSanitizer watches.

python -m tests.races        builds the rollouts for the host, where every block is a thread, and runs some; needs GCC
"""

import os
import subprocess
import sys

import torch

from fastdraw.errors import FastdrawError
from fastdraw.kernels.compile import ROOT, run

from .emulation import SOURCES, build, nvcc

USED = [path for path in SOURCES if path.stem in ("emulation", "ops", "glimpse", "rollout", "rollout_bwd")]
ENDED = "all rollouts have run"


def watch() -> None:
    """Run rollouts, forward and backward, on plans of several kinds; reports are written to stderr as they come."""
    # The library is loaded with fastdraw.
    from fastdraw.ops import persistent

    from .ops.cases import Draw, Inputs, Run
    from .ops.checking import run as run_with_gradients

    torch.set_num_threads(1)  # the threads that matter are the blocks
    for blocks, B, U, n in ((7, 5, 40, 3), (3, 9, 13, None), (9, 26, 13, 4)):
        persistent.EMULATED = persistent.Limits(blocks, 227 << 10)
        draw = Draw(B=B, C=1, H=6, W=7, T=3, L=3, D=5, A=9, U=U, Z=7, n_read=n, n_write=n)
        for op in ("draw_rollout", "draw_generate"):
            for rounded in (False, True):
                inputs = Inputs(op, torch.float32, "cpu")
                arguments = getattr(draw, op.removeprefix("draw_"))(inputs) | {
                    "steps": inputs.counts(*(3 - b % 3 for b in range(B)))
                }
                with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
                    run_with_gradients(Run(op, "cuda", "cpu"), arguments)
    print(ENDED)


def main() -> str | None:
    """What is wrong, if anything."""
    if nvcc() is None:
        print("fastdraw: no races were looked for: there is no CUDA toolkit, whose headers the kernels include")
        return None
    library = build(ROOT / "build" / "races", USED, ["-fsanitize=thread"])
    preload = " ".join(run("g++", f"-print-file-name=lib{name}.so").strip() for name in ("tsan", "stdc++"))
    options = f"suppressions={ROOT / 'tests' / 'races.txt'} exitcode=0 report_signal_unsafe=0"
    environment = os.environ | {"FASTDRAW_EMULATED": str(library), "LD_PRELOAD": preload, "TSAN_OPTIONS": options}
    command = [
        "setarch",
        "-R",
        sys.executable,
        "-c",
        "from tests.races import watch; watch()",
    ]  # -R: memory where it looks
    done = subprocess.run(
        command, env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0 or ENDED not in done.stdout or "data race" in done.stdout:
        return f"fastdraw: error: the rollouts have races, or did not run:\n{done.stdout}"
    return None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FastdrawError as error:
        sys.exit(f"fastdraw: error: {error}")
