"""Time lstm_gates and its backward on the GPU, each backend beside eager PyTorch; the rows go to a JSON file.

    python -m benchmarks.gpu.lstm_gates ROWS.json

Bytes moved, for elements of s bytes: forward 7 B U s (5 read, 2 written), backward 12 B U s (7 read, 5 written). GB/s
are these bytes over the median time, for eager too, though it moves more. The L2 cache is emptied before every call.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from triton.testing import do_bench

from fastdraw import dispatch, reference
from fastdraw.ops.lstm import _lstm_gates

SIZES = [
    (100, 400),
    (4096, 400),
    (262144, 400),
]  # paper 000's step, a large batch, and one that fills the memory system
DTYPES = [torch.float32, torch.bfloat16]
ELEMENTS = {"lstm_gates": 7, "lstm_gates_bwd": 12}


def calls(
    dh: torch.Tensor, dc_next: torch.Tensor, gates: torch.Tensor, c: torch.Tensor
) -> dict[tuple[str, str], Callable[[], Any]]:
    """What is timed: (op, backend) -> a call."""
    leaves = gates.detach().requires_grad_(), c.detach().requires_grad_()
    outputs = reference.lstm_gates(*leaves)
    found: dict[tuple[str, str], Callable[[], Any]] = {
        ("lstm_gates", "eager"): lambda: reference.lstm_gates(gates, c),
        ("lstm_gates_bwd", "eager"): lambda: torch.autograd.grad(outputs, leaves, (dh, dc_next), retain_graph=True),
    }
    for backend, namespace in (("triton", torch.ops.fastdraw_triton), ("cuda", torch.ops.fastdraw)):
        if dispatch.refusal(backend, "lstm_gates", _lstm_gates.backends, "cuda", "float32") is None:
            found["lstm_gates", backend] = lambda ns=namespace: ns.lstm_gates(gates, c)
            found["lstm_gates_bwd", backend] = lambda ns=namespace: ns.lstm_gates_bwd(dh, dc_next, gates, c)
    return found


def main(path: Path) -> None:
    rows = []
    for B, U in SIZES:
        for dtype in DTYPES:
            tensors = [torch.randn(B, columns, device="cuda").to(dtype) for columns in (U, U, 4 * U, U)]
            for (op, backend), call in sorted(calls(*tensors).items()):
                median, p20, p80 = (1e3 * ms for ms in do_bench(call, quantiles=[0.5, 0.2, 0.8]))
                moved = ELEMENTS[op] * B * U * dtype.itemsize
                name = str(dtype).removeprefix("torch.")
                rows.append(
                    {"op": op, "backend": backend, "B": B, "U": U, "dtype": name, "median_us": median, "p20_us": p20}
                    | {"p80_us": p80, "bytes": moved, "gb_per_s": moved / median / 1e3}
                )
            path.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
