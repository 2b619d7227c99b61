"""The rollouts of the backend "cuda": all steps of a pass are one launch (csrc/cuda/rollout.cu, rollout_bwd.cu).

What is one product for all steps stands around the launch: the keys of the labels before it, the gradients of the
weights after it.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import dispatch
from ..kernels.rollout_layout import Call, Sizes, read_call, sizes_of, weight_shapes
from . import persistent_rows as rows

NAMESPACE = "fastdraw_emulated" if dispatch.emulated else "fastdraw"
NATIVE = getattr(torch.ops, NAMESPACE)
COUNTER_STRIDE = 32  # kCounterStride of csrc/cuda/rollout.h


class Limits(NamedTuple):
    """What a launch may take: multiprocessors, and bytes of shared memory on each."""

    multiprocessors: int
    shared: int


EMULATED = Limits(5, 227 << 10)  # on the host every block is a thread


class Plan(NamedTuple):
    """What a launch takes; no blocks: none fits, and `shared` is the least that was tried."""

    groups: int
    blocks: int
    scratch: int
    shared: int


def limits(device: torch.device) -> Limits:
    if device.type == "cpu":
        return EMULATED
    at = torch.cuda.get_device_properties(device)
    return Limits(at.multi_processor_count, at.shared_memory_per_block_optin)


@cache
def plan(at: Sizes, bfloat16: bool, backward: bool, of: Limits) -> Plan:
    return Plan(*NATIVE.persistent_plan([*numbers_of(at), 0, 0, 0, 0], bfloat16, backward, *of))


def refusal(encoder: bool, arguments: Sequence[Any]) -> str | None:
    """Why the persistent rollout cannot serve a call of these sizes, or None when it can."""
    return _refusal(read_call(encoder, arguments))


def _refusal(call: Call) -> str | None:
    at, of = sizes_of(call), limits(call.noise.device)
    for backward in (False, True):
        found = plan(at, call.bfloat16, backward, of) if at.B else None
        if found and not found.blocks:
            return (
                f"U = {at.U} and a batch of {at.B} do not fit: a block needs {found.shared >> 10} KiB of shared memory "
                f"at least, and each of the GPU's {of.multiprocessors} multiprocessors has {of.shared >> 10} KiB"
            )
    return None


def _plan_of(call: Call, *, backward: bool) -> Plan:
    """Of a call that nobody has asked `refusal` about, under torch.compile."""
    why = _refusal(call)
    if why is not None:
        raise RuntimeError(f"the persistent rollout cannot run: {why}")
    return plan(sizes_of(call), call.bfloat16, backward, limits(call.noise.device))


def saved_shape(encoder: bool, arguments: Sequence[Any]) -> tuple[int, int]:
    """saved_rows and saved_width of a call that a backward pass may follow."""
    call = read_call(encoder, arguments)
    return rows.saved_shape(sizes_of(call), call.bfloat16)


def draw_rollout(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The torch op's flat arguments -> nll (B,), kl (T, B), canvas (B, C, H, W) and what the backward pass needs."""
    call = read_call(True, arguments)
    made = _forward(call)
    nll, kl, canvas = (made[name].to(call.noise.dtype) for name in ("nll", "kl", "canvas"))
    return nll, kl, canvas, made["saved"]


def draw_generate(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The torch op's flat arguments -> canvas (B, C, H, W) or frames (T, B, C, H, W), and as `draw_rollout`."""
    call = read_call(False, arguments)
    made = _forward(call)
    return made["frames" if call.frames else "canvas"].to(call.noise.dtype), made["saved"]


def draw_rollout_bwd(dnll: Tensor, dkl: Tensor, dcanvas: Tensor, saved: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of the outputs, what was saved, the flat arguments, what is wanted -> those of inputs and weights."""
    return _backward(read_call(True, arguments), saved, {"nll": dnll, "kl": dkl, "canvas": dcanvas})


def draw_generate_bwd(dcanvas: Tensor, saved: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """As `draw_rollout_bwd`; the one output is the canvas, or the frames."""
    call = read_call(False, arguments)
    return _backward(call, saved, {"frames" if call.frames else "canvas": dcanvas})


def _forward(call: Call) -> dict[str, Tensor]:
    at, kept = sizes_of(call), rows.saved_shape(sizes_of(call), call.bfloat16)
    keep = call.rest != (0, 0)
    if keep and call.rest != kept:
        raise ValueError(f"saved_rows and saved_width must be 0, or {kept[0]} and {kept[1]}, got {call.rest}")
    empty, zeros = _factories(call)
    canvas = at.B, at.C, at.H, at.W
    made = {
        "nll": empty(at.B * at.encoder),
        "kl": empty(at.T, at.B * at.encoder),
        "canvas": empty(*canvas),
        "frames": empty(at.T, *canvas) if call.frames else empty(0),
    }
    saved = (empty if call.steps is None else zeros)(*call.rest)  # 0: gradients of 0 meet what no step has left
    if at.B > 0:
        names = tuple(rows.parts(at)) if keep else rows.EXCHANGED
        memory = saved if keep else empty(2 * at.B, rows.row_width(at, call.bfloat16, names))
        record = rows.lay_out(memory, at, call.bfloat16, names)
        found = _plan_of(call, backward=False)
        kl_parts = empty(at.T, at.B, found.blocks * at.encoder)
        NATIVE.persistent_forward(
            list(_inputs(call).values()), [record.get(name, empty(0)) for name in rows.parts(at)],
            [*made.values(), kl_parts, _counters(call, found)], _numbers(call), call.eps, call.bfloat16, keep, found,
        )  # fmt: skip
    return made | {"saved": saved}


def _backward(call: Call, saved: Tensor, upstream: dict[str, Tensor]) -> tuple[Tensor, ...]:
    at, noise, kept = sizes_of(call), call.noise, rows.saved_shape(sizes_of(call), call.bfloat16)
    if saved.shape[0] == 0 and at.B > 0:
        raise ValueError("the backward of a rollout needs what the forward call saved: it had saved_rows = 0")
    if saved.shape != kept or saved.dtype != torch.float32:
        came = f"{tuple(saved.shape)} in {saved.dtype}"
        raise ValueError(f"saved must have shape {kept} in torch.float32, as the forward call returned it, got {came}")
    inputs = {"image": call.image, "labels": call.labels, "noise": noise} if at.encoder else {
        "labels": call.labels, "noise": noise,
    }  # fmt: skip
    wanted = [name for name, want in zip(inputs, call.rest, strict=True) if want]
    if at.B > 0:
        found = _launch_backward(call, saved.contiguous(), upstream, wanted)
    else:
        found = {name: noise.new_zeros(shape) for name, shape in weight_shapes(at).items()}
        found |= {name: noise.new_empty(inputs[name].shape) for name in wanted}
    of = [(name, noise.dtype, name in wanted) for name in inputs]
    of += [
        (name, getattr(weight, "dtype", None), name in weight_shapes(at))
        for name, weight in call.weights._asdict().items()
    ]
    return tuple(found[name].to(dtype) if used else noise.new_empty(0) for name, dtype, used in of)


def _launch_backward(
    call: Call, saved: Tensor, upstream: dict[str, Tensor], wanted: Sequence[str]
) -> dict[str, Tensor]:
    """The gradients of the wanted inputs and of the weights, by name."""
    at, bfloat16, found = sizes_of(call), call.bfloat16, _plan_of(call, backward=True)
    empty, zeros = _factories(call)
    unless_taken = empty if call.steps is None else zeros
    record, inputs = rows.lay_out(saved, at, bfloat16, rows.parts(at)), _inputs(call)
    product = torch.bfloat16 if bfloat16 else torch.float32
    made = {
        name: unless_taken(height, width, dtype=product) for name, (height, width) in rows.gradient_shapes(at).items()
    }
    results = {
        "canvas0": empty(at.B, at.C, at.H, at.W),
        "image": empty(at.B, at.C, at.H, at.W) if "image" in wanted else empty(0),
        "noise": unless_taken(at.T, at.B, at.Z) if "noise" in wanted else empty(0),
        "keys": zeros(at.B, at.L, at.A),
        "labels": zeros(at.B, at.L, at.D),
        "align_v": zeros(at.B, at.A),
    }
    NATIVE.persistent_backward(
        list(inputs.values()), list(record.values()),
        [_dense(upstream[name]) if name in upstream else empty(0) for name in ("nll", "kl", "canvas", "frames")],
        [*made.values(), empty(at.B, at.glimpse), empty(at.B, at.D), _counters(call, found)],
        list(results.values()), _numbers(call), call.eps, bfloat16, found,
    )  # fmt: skip
    for name in ("canvas0", "align_v"):
        results[name] = results[name].sum(0)
    if at.L:
        dkeys = results["keys"]
        results["align_key"] = rows.multiply(dkeys.flatten(0, 1).T, inputs["labels"].flatten(0, 1), bfloat16)
        # Through the keys as well as through the values.
        results["labels"] += rows.multiply(dkeys, inputs["align_key"], bfloat16)
    return (
        results | rows.weight_gradients(at, bfloat16, record, made) | rows.state_gradients(at, bfloat16, inputs, made)
    )


def _factories(call: Call) -> tuple[Any, Any]:
    """torch.empty and torch.zeros in float32 where the call's tensors are."""
    place = {"dtype": torch.float32, "device": call.noise.device}
    return partial(torch.empty, **place), partial(torch.zeros, **place)


def _counters(call: Call, found: Plan) -> Tensor:
    return torch.zeros(found.groups * COUNTER_STRIDE, dtype=torch.int32, device=call.noise.device)


def numbers_of(at: Sizes) -> list[int]:
    """The sizes in the order of csrc/cuda/bindings/rollout.cpp."""
    sizes = (at.B, at.C, at.H, at.W, at.T, at.L, at.D, at.A, at.U, at.Z, at.n_read, at.n_write)
    return [*sizes, int(at.encoder)]


def _numbers(call: Call) -> list[int]:
    options = (call.tanh_prior, call.standard_first, call.log_variance, call.per_axis)
    return [*numbers_of(sizes_of(call)), *map(int, options)]


def _dense(x: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return x.to(dtype, memory_format=torch.contiguous_format).contiguous()


def _inputs(call: Call) -> dict[str, Tensor]:
    """Weights and inputs as a launch takes them; empty for what the call has no use for."""
    nothing = torch.empty(0, dtype=torch.float32, device=call.noise.device)
    used = weight_shapes(sizes_of(call))
    given = {name: weight if name in used else None for name, weight in call.weights._asdict().items()}
    given |= {"noise": call.noise, "image": call.image, "labels": call.labels}
    inputs = {name: nothing if x is None else _dense(x) for name, x in given.items()}
    inputs["keys"] = nothing
    if call.labels is not None:
        inputs["keys"] = rows.multiply(inputs["labels"], inputs["align_key"].T, call.bfloat16)
    for name, x in (("lengths", call.lengths), ("steps", call.steps)):
        inputs[name] = nothing if x is None else _dense(x, torch.int64)
    return inputs


def _without_autocast(launch: Callable[..., Any]) -> Callable[..., Any]:
    """What is to be rounded is said by the arguments; torch would round all products around the launch."""

    def call(*arguments: Any) -> Any:
        with torch.autocast(next(x for x in arguments if x is not None).device.type, enabled=False):
            return launch(*arguments)

    return call


_LIBRARY = torch.library.Library(NAMESPACE, "IMPL")
if dispatch.emulated or dispatch.cuda_refusal is None:
    for _launch in (draw_rollout, draw_rollout_bwd, draw_generate, draw_generate_bwd):
        _LIBRARY.impl(_launch.__name__, _without_autocast(_launch), "CPU" if dispatch.emulated else "CUDA")
