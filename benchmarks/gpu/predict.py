"""What an H200 should take, from launches, bytes and products, where nobody has measured it yet.

    python -m benchmarks.gpu.predict     writes docs/results/gpu-predicted.json; needs no GPU

Predicted GPU time = launches in a CUDA graph x 2.5 us + the larger of bytes over bandwidth and products over peak rate.
Eager is launched one by one: 6 us of the host's time for each launch, if that is longer. Nothing overlaps, and every
product reaches the peak: the first makes the figures too large, the second too small.
"""

import json
import os
import subprocess
import sys
from datetime import datetime, timezone
from typing import Any

from benchmarks.facts import source
from benchmarks.gpu.cases import BATCHES, DTYPES, Sizes, cases, least_bytes, multiply_adds
from benchmarks.interleave import ROOT
from fastdraw.files import write_atomically

OUT = ROOT / "docs" / "results" / "gpu-predicted.json"
# NVIDIA's data sheet of the H200, without sparsity; launches as in the design's notes on other people's kernels.
ASSUMED = {
    "bytes_per_s": 4.8e12,
    "float32_flops_per_s": 67e12,
    "bfloat16_flops_per_s": 989e12,
    "graph_launch_s": 2.5e-6,
    "eager_launch_s": 6e-6,
}


def counted() -> dict[str, Any]:
    """Launches by case and competitor."""
    environment = os.environ | {"FASTDRAW_GPU_DRY": "1", "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "benchmarks.gpu.counts"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr[-2000:])
    return json.loads(done.stdout)


def predicted(launches: dict[str, Any], steps: int, moved: int, flops: int, dtype: str) -> dict[str, Any]:
    """Seconds, by competitor."""
    work = max(moved / ASSUMED["bytes_per_s"], flops / ASSUMED[f"{dtype}_flops_per_s"])
    count = {who: each["once"] + steps * each["per_step"] for who, each in launches.items()}
    graph = {who: number * ASSUMED["graph_launch_s"] + work for who, number in count.items()}
    eager = {who: max(number * ASSUMED["eager_launch_s"], graph[who]) for who, number in count.items()}
    # Of an op alone it is the GPU's time, since what the host needs for one call depends on the machine.
    in_graph = launches["ours"].get("graph", True)
    return {
        "launches": count,
        "launches_per_step": {who: each["per_step"] for who, each in launches.items()} if steps else None,
        "seconds": {
            "ours": graph["ours"] if in_graph else eager["ours"],
            "graph": graph["eager"],
            "eager": eager["eager"],
        },
    }


def main() -> None:
    launches = counted()
    found = {}
    for case, make in cases("ops", "eager").items():
        timed = make()
        found[case] = predicted(launches[case], 0, timed.moved or 0, 0, case.split()[-1])
    for kind in ("training", "forward", "drawing"):
        for batch in BATCHES:
            for dtype in DTYPES:
                sizes, passes = Sizes(batch), 3 if kind == "training" else 1
                flops = 2 * passes * multiply_adds(sizes, encoder=kind != "drawing")
                moved = passes * least_bytes(sizes, dtype)
                case = f"{kind} B={batch} {dtype}"
                found[case] = predicted(launches[f"{kind} {dtype}"], sizes.T, moved, flops, dtype)
    about = {**source(), "date": datetime.now(timezone.utc).date().isoformat(), "assumed": ASSUMED}
    write_atomically(OUT, (json.dumps(about | {"cases": found}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
