"""Look for faster launch configurations of the Triton kernels on the GPU that is there: `python -m fastdraw.tune`.

What it finds is kept in a file, by the name of the GPU, and wins over the table that fastdraw brings. From that table
it goes one number at a time, to half and to double, as long as forward and backward together, at the sizes of
paper 000, get faster.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from tqdm import tqdm

from . import dispatch, kernels, ops
from .errors import FastdrawError
from .files import write_atomically
from .kernels import configs, graphs
from .published import Call

DTYPES = (torch.float32, torch.bfloat16)
ROLLOUTS = ("draw_rollout", "draw_generate")
GAIN = 0.98  # of the time that the best so far takes: what differs less may be noise

Config = dict[str, int]


class Tuned(NamedTuple):
    """The best configuration of some kernels, and how much faster than the one before it is."""

    name: str
    before: Config
    best: Config
    speedup: float

    def __str__(self) -> str:
        changes = [
            f"{key} {value} -> {self.best[key]}" for key, value in self.before.items() if value != self.best[key]
        ]
        return f"{self.name:<12} {self.speedup:.2f} x  {', '.join(changes) or 'as it was'}"


def tune() -> list[Tuned]:
    """Tune every entry of the table, and keep each as soon as it is found.

    Raises:
        FastdrawError: there is no GPU that Triton can run on, or the file of tuned configurations is broken or cannot
            be written.
    """
    device = _gpu()
    gpu = torch.cuda.get_device_name(device)
    before = configs.current(device)
    results = []
    with tqdm(_users(before, device).items(), unit="kernel", disable=None) as bar:
        for name, users in bar:
            bar.set_postfix_str(name)
            results.append(_search(name, before, [Call(op, dtype, device) for op in users for dtype in DTYPES]))
            _keep(gpu, name, results[-1].best)
    return results


def measure(call: Call) -> float:
    """Seconds that the GPU takes forward and backward, without what the CPU adds between the kernels."""
    from triton.testing import do_bench_cudagraph

    graphs.clear()  # they would be launched with the configuration that they were captured with
    return do_bench_cudagraph(lambda: call.backward(call.forward()), return_mode="median") / 1e3


def _gpu() -> torch.device:
    if not torch.cuda.is_available():
        raise FastdrawError("tuning needs a GPU, and torch sees none (`python -m fastdraw.info` shows devices)")
    device = torch.device("cuda", torch.cuda.current_device())
    why = kernels.reason(device.type, device.index)
    if why is not None:
        raise FastdrawError(f"nothing can be tuned: {why}")
    return device


def _users(table: Mapping[str, Config], device: torch.device) -> dict[str, list[str]]:
    """The ops that launch the kernels of each entry; the rollouts, which launch most, only where no other op does."""
    found: dict[str, list[str]] = {}
    for op in sorted((op.name for op in ops.TABLE if "triton" in op.backends), key=lambda op: op in ROLLOUTS):
        asked = _Asked(table)
        with configs.using(asked), dispatch.backend("triton"):
            call = Call(op, torch.float32, device)
            call.backward(call.forward())
        for name in asked.names:
            if op not in ROLLOUTS or name not in found:
                found.setdefault(name, []).append(op)
    return found


class _Asked(dict[str, Config]):
    """A table that remembers what was looked up, in order."""

    def __init__(self, table: Mapping[str, Config]):
        super().__init__(table)
        self.names: dict[str, None] = {}

    def __getitem__(self, name: str) -> Config:
        self.names[name] = None
        return super().__getitem__(name)


def _search(name: str, table: Mapping[str, Config], calls: Iterable[Call]) -> Tuned:
    calls = list(calls)
    best, tried = table[name], {tuple(table[name].values())}
    times = first = _times(name, table, best, calls)
    if math.inf in first:
        raise FastdrawError(f"the kernels of {name!r} cannot be launched with {best} on this GPU")
    moved = True
    while moved:
        moved = False
        for candidate in _neighbours(best):
            if tuple(candidate.values()) in tried:
                continue
            tried.add(tuple(candidate.values()))
            found = _times(name, table, candidate, calls)
            if _ratio(found, times) < GAIN:
                best, times, moved = candidate, found, True
                break
    return Tuned(name, table[name], best, 1 / _ratio(times, first))


def _neighbours(config: Config) -> Iterable[Config]:
    for key, value in config.items():
        if key != "maxnreg":  # the table gives it to a kernel that would spill
            for near in (value + 1, value - 1) if key in configs.ANY_NUMBER else (value * 2, value // 2):
                if near >= 1:
                    yield {**config, key: near}


def _times(name: str, table: Mapping[str, Config], config: Config, calls: Iterable[Call]) -> list[float]:
    from triton.errors import TritonError

    with configs.using({**table, name: config}), dispatch.backend("triton"):
        try:
            return [measure(call) for call in calls]
        except (
            TritonError,
            RuntimeError,
        ):  # too much shared memory or too many warps, a block too small for an instruction
            return [math.inf for _ in calls]


def _ratio(times: list[float], others: list[float]) -> float:
    """The geometric mean of the ratios."""
    return math.exp(sum(math.log(a / b) for a, b in zip(times, others, strict=True)) / len(times))


def _keep(gpu: str, name: str, config: Config) -> None:
    path = configs.tuned_file()
    kept = configs.read_tuned()
    kept.setdefault(gpu, {})[name] = config
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(kept, indent=1).encode())
    configs.forget_tuned()
    graphs.clear()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fastdraw.tune", description=__doc__)
    parser.parse_args()
    for result in tune():
        print(result)
    print(f"kept in {configs.tuned_file()}, which every process on this GPU uses from now on")


if __name__ == "__main__":
    try:
        main()
    except FastdrawError as error:
        sys.exit(f"fastdraw: error: {error}")
