"""How many kernels every case launches, counted on the CPU and in Triton's interpreter, as JSON on stdout.

    FASTDRAW_GPU_DRY=1 TRITON_INTERPRET=1 python -m benchmarks.gpu.counts

Launches of Triton's are counted as they come, those of torch's as torch's profiler sees them: one for every innermost
operation that is neither a view nor an allocation. The interpreter knows no bfloat16; an op's kernels are as many.
"""

import json
import warnings
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu.cases import DTYPES, Sizes, Timed, cases, rollout
from benchmarks.gpu.device import DRY
from fastdraw import dispatch, ops

LAUNCH = "a launch of Triton's"
# The op replays a graph; a loop over ops launches one by one.
FUSED = any(op.name == "draw_rollout" and "triton" in op.backends for op in ops.TABLE)
# fmt: off
NO_KERNEL = {
    "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_", "set_",
    "view", "_unsafe_view", "view_as", "reshape", "_reshape_alias", "as_strided", "select", "slice", "narrow",
    "transpose", "t", "permute", "movedim", "expand", "expand_as", "broadcast_to", "unsqueeze", "squeeze", "split",
    "split_with_sizes", "chunk", "unbind", "unflatten", "flatten", "alias", "detach", "detach_", "lift_fresh", "item",
    "mT", "numpy_T", "is_nonzero", "_local_scalar_dense", "result_type", "unfold", "diagonal", "resolve_conj",
    "resolve_neg", "to", "_to_copy", "type_as", "contiguous",
}
# fmt: on


def launches(timed: Timed) -> int:
    timed.call()
    with warnings.catch_warnings(), profile(activities=[ProfilerActivity.CPU]) as profiled:
        warnings.simplefilter("ignore")
        timed.call()
    return sum(_counts(event) for event in profiled.events())


def _counts(event: Any) -> bool:
    if _inside_launch(event.cpu_parent):
        return False
    return event.name == LAUNCH or (_has_kernel(event) and not any(map(_any_kernel, event.cpu_children)))


def _inside_launch(event: Any) -> bool:
    return event is not None and (event.name == LAUNCH or _inside_launch(event.cpu_parent))


def _has_kernel(event: Any) -> bool:
    return event.name.startswith("aten::") and event.name.removeprefix("aten::") not in NO_KERNEL


def _any_kernel(event: Any) -> bool:
    return _has_kernel(event) or any(map(_any_kernel, event.cpu_children))


def mark_launches() -> None:
    """Let the profiler see each launch of the interpreter as one event, whatever the interpreter does for it."""
    from triton.runtime.interpreter import GridExecutor

    launch = GridExecutor.__call__

    def marked(executor: Any, *arguments: Any, **options: Any) -> Any:
        with record_function(LAUNCH):
            return launch(executor, *arguments, **options)

    GridExecutor.__call__ = marked


def main() -> None:
    assert DRY, "set FASTDRAW_GPU_DRY=1"
    dispatch.PREFERENCE["cpu"] = dispatch.PREFERENCE["cuda"]  # the interpreter in place of the GPU
    torch.set_num_threads(1)
    mark_launches()
    found: dict[str, dict[str, Any]] = {}
    for who in ("ours", "eager"):
        for name, make in cases("ops", who).items():
            if who == "ours" and name.endswith("bfloat16"):
                found[name] = {who: found[name.replace("bfloat16", "float32")][who]}
            else:
                found.setdefault(name, {})[who] = {"once": launches(make()), "per_step": 0}
        for kind in ("training", "forward", "drawing"):
            for dtype in DTYPES if who == "eager" else ("float32",):
                two, three = (launches(rollout(who, kind, Sizes(2, T=steps), dtype)) for steps in (2, 3))
                counted = {"once": two - 2 * (three - two), "per_step": three - two, "graph": who == "ours" and FUSED}
                found.setdefault(f"{kind} {dtype}", {})[who] = counted
            if who == "ours":
                found[f"{kind} bfloat16"] = {who: found[f"{kind} float32"][who]}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
