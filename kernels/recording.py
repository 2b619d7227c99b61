"""Calls of the ops in which every Triton kernel is recorded and none runs: no GPU is needed."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from .. import dispatch, ops
from ..published import Call
from . import configs, graphs

CPU = torch.device("cpu")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv")
ROLLOUTS = ("draw_rollout", "draw_generate")
PASSES = ("forward", "forward for a backward", "backward")


class Launch(NamedTuple):
    """A Triton kernel with all that Triton would compile it for."""

    kernel: JITFunction
    signature: dict[str, str]
    constants: dict[tuple[int, ...], Any]
    attributes: dict[tuple[int, ...], Any]
    options: dict[str, Any]

    @property
    def variant(self) -> str:
        """The constants of the kernel and the arguments that were left out, and how it is launched."""
        named = {self.kernel.arg_names[place]: value for (place,), value in self.constants.items()}
        declared = {parameter.name for parameter in self.kernel.params if parameter.is_constexpr}
        shown = {name: value for name, value in named.items() if name in declared or value is None}
        shown |= {name: self.options[name] for name in ("num_warps", "num_stages")}
        return ", ".join(f"{name} {value}" for name, value in shown.items())


def target(arch: str) -> GPUTarget:
    return GPUTarget("cuda", int(re.sub(r"\D", "", arch)), 32)


def operators() -> list[str]:
    """The ops that have Triton kernels."""
    return [op.name for op in ops.TABLE if "triton" in op.backends]


def launches(op: str, dtype: torch.dtype, arch: str) -> list[Launch]:
    """What an op launches, forward and backward, at the published sizes on a GPU of that architecture."""
    found: list[Launch] = []
    # Under autocast the rollouts stay in float32 and multiply in bfloat16; other ops are then called in either.
    autocasts = (False, True) if op in ROLLOUTS and dtype == torch.float32 else (False,)
    with configs.using(configs.of(arch)), recorded(target(arch), found.append):
        for learns_data, autocast in itertools.product((False, True), autocasts):
            call = Call(op, dtype, CPU, learns_data)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                with torch.no_grad():
                    call.forward()
                outputs = call.forward()
            call.backward(outputs)
    distinct = {repr((id(launch.kernel), *launch[1:])): launch for launch in found}
    return list(distinct.values())


def launches_per_step(op: str, arch: str) -> dict[str, Counter[str]]:
    """How much a step of a rollout launches in each of `PASSES`: Triton kernels, products of torch, others of it."""

    def count(steps: int) -> dict[str, Counter[str]]:
        counts = {name: Counter[str]() for name in PASSES}
        call = Call(op, torch.float32, CPU, steps=steps)
        with counted(counts["forward"]), torch.no_grad():
            call.forward()
        with counted(counts["forward for a backward"]):
            outputs = call.forward()
        with counted(counts["backward"]):
            call.backward(outputs)
        return counts

    with configs.using(configs.of(arch)):
        fewer, more = count(2), count(3)
    for name in PASSES:
        more[name].subtract(fewer[name])
    return more


@contextmanager
def recorded(target: GPUTarget, record: Any) -> Iterator[None]:
    """Give every launch of a Triton kernel to `record`, and all tensors to Triton, wherever they are."""
    backend = make_backend(target)

    def run(kernel: JITFunction, *arguments: Any, grid: Any, warmup: bool, **keywords: Any) -> None:
        # As JITFunction.run, which asks the GPU that is there for its target.
        bind = create_function_from_signature(kernel.signature, kernel.params, backend)
        keywords["debug"] = False
        bound, specialization, options = bind(*arguments, **keywords)
        options, *rest = kernel._pack_args(backend, keywords, bound, specialization, options)
        record(Launch(kernel, *rest, options.__dict__))

    def choose(op: str, kernels: Any, *tensor: Any) -> str:
        return "triton" if "triton" in kernels else "reference"

    graphs.clear()  # so that every call goes the way of a first one
    with mock.patch.object(JITFunction, "run", run), mock.patch.object(dispatch, "choose", choose):
        yield
    graphs.clear()  # of passes in which nothing ran


class _Counting(TorchDispatchMode):
    """Counts what torch would launch, also inside the ops of fastdraw."""

    def __init__(self, counts: Counter[str]):
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.namespace == "fastdraw_triton":
            with self:
                return function.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **kwargs)
        with self:
            composed = function.decompose(*args, **kwargs)
        if composed is not NotImplemented:
            return composed
        name = function.overloadpacket.__name__
        if name in PRODUCTS:
            self.counts["products"] += 1
        elif not function.is_view and "empty" not in name and name != "detach":
            self.counts["others"] += 1
        return function(*args, **kwargs)


@contextmanager
def counted(counts: Counter[str]) -> Iterator[None]:
    def count(launch: Launch) -> None:
        counts["triton"] += 1

    with recorded(target("sm_90"), count), _Counting(counts):
        yield
