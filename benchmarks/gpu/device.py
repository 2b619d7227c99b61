"""The device that is timed, or the CPU in a dry run, where calls are made and nothing is timed."""

import os
import time
from collections.abc import Callable
from typing import Any

import torch

DRY = os.environ.get("FASTDRAW_GPU_DRY") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not DRY else "cpu"  # timings need a GPU, counts do not
FLUSHED = 256 << 20  # bytes: more than any L2 cache holds
TURN = 0.03  # seconds of wall time that a turn may take, and as much of kernel time
MOST = 30  # samples in a turn
COPY = 1 << 10 if DRY else 1 << 30  # bytes
SIDE = 16 if DRY else 8192

Call = Callable[[], Any]


def wall_seconds(call: Call) -> list[float]:
    """Host time of call after call, each until the GPU has finished it; the first is not counted."""
    if DRY:
        call()
        return []
    call()
    torch.cuda.synchronize()
    samples: list[float] = []
    end = time.perf_counter() + TURN
    while len(samples) < MOST and (not samples or time.perf_counter() < end):
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        samples.append(time.perf_counter() - start)
    return samples


def kernel_seconds(call: Call) -> list[float]:
    """GPU time of call after call by CUDA events, each with an empty L2 cache; for a call that launches at once."""
    if DRY:
        return []
    cache = torch.empty(FLUSHED, dtype=torch.int8, device=DEVICE)
    samples: list[float] = []
    end = time.perf_counter() + TURN
    while len(samples) < MOST and (not samples or time.perf_counter() < end):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cache.zero_()
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize()
        samples.append(start.elapsed_time(stop) / 1e3)
    return samples


def captured(call: Call) -> Call:
    """The call as a CUDA graph."""
    if DRY:
        return call
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()

    def replay(kept: Any = kept) -> None:  # the graph writes to what it returned
        graph.replay()

    return replay


def peak_bytes(call: Call) -> dict[str, int] | None:
    """The most memory that the first calls take above what was there: in tensors, and in all."""
    if DRY:
        call()
        return None
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    allocated, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(2):  # what a call keeps for the next one, such as a graph's memory, counts too
        call()
    torch.cuda.synchronize()
    return {
        "allocated": torch.cuda.max_memory_allocated() - allocated,
        "reserved": torch.cuda.max_memory_reserved() - reserved,
    }


def roof() -> dict[str, float | None]:
    """What the machine can do: bytes per second of a copy, flops per second of large products."""
    source = torch.zeros(COPY, dtype=torch.int8, device=DEVICE)
    target = torch.empty_like(source)
    found = {"copy_bytes_per_s": _rate(lambda: target.copy_(source), 2 * COPY)}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        a, b = (torch.randn(SIDE, SIDE, device=DEVICE).to(dtype) for _ in range(2))
        found[f"{str(dtype).removeprefix('torch.')}_flops_per_s"] = _rate(lambda a=a, b=b: a @ b, 2 * SIDE**3)
    return found


def _rate(call: Call, work: float) -> float | None:
    call()
    samples = sorted(kernel_seconds(call))
    return work / samples[len(samples) // 2] if samples else None
