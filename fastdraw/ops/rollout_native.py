"""The kernels of the rollouts as torch ops: their flat arguments, shapes and derivatives.

`draw_generate` is `draw_rollout` without an encoder: it has no image and no read glimpse, and it may return frames.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .. import dispatch, reference
from ..kernels.rollout_layout import saved_width
from ..reference.rollout import DrawWeights, Options
from . import autocast, persistent
from .op import Native, Op, backward_may_come


class Call(NamedTuple):
    """Flat arguments by name."""

    noise: Tensor
    image: Tensor | None
    labels: Tensor | None
    lengths: Tensor | None
    steps: Tensor | None
    weights: DrawWeights
    n_read: int  # 0: no attention, or no encoder
    n_write: int
    options: tuple[Any, ...]  # see `flat_options`
    bfloat16: bool
    frames: bool
    rest: tuple[Any, ...]  # saved_rows and saved_width forward; which gradients are wanted backward


def flat_options(options: dict[str, Any]) -> tuple[Any, ...]:
    """Options as the kernels take them: tanh_prior, standard_first, log_variance, per_axis, eps."""
    chosen = Options(**options)
    return (
        chosen.prior_activation == "tanh",
        chosen.first_prior == "standard",
        chosen.log_variance,
        chosen.stride == "per_axis",
        chosen.eps,
    )


def multiplies_in_bfloat16(noise: Tensor) -> bool:
    """Whether products take their matrices in bfloat16, to which the kernels round float32 as they pack it."""
    if noise.dtype == torch.float32 and autocast.is_enabled(noise.device.type):
        return torch.get_autocast_dtype(noise.device.type) == torch.bfloat16
    return noise.dtype == torch.bfloat16


def _work(noise: Tensor) -> dispatch.Work:
    dtype = "bfloat16" if multiplies_in_bfloat16(noise) else str(noise.dtype).removeprefix("torch.")
    return dispatch.Work(dtype, noise.shape[1])


def saved_shape(
    encoder: bool, backend: str, tensors: Sequence[Tensor | None], scalars: Sequence[Any], steps: Tensor | None
) -> tuple[int, int]:
    """saved_rows and saved_width of a call.

    Rows to keep for the backward pass are 0 for none, -1 for those of all T B steps, else as many as will be taken.
    Their width is a matter of the backend.
    """
    if not backward_may_come(tensors):
        return 0, 0
    if backend == "triton":
        return -1, saved_width(encoder, (*tensors, *scalars))
    if backend == "cuda":
        return persistent.saved_shape(encoder, (*tensors, *scalars))
    width = _saved_width(_call(encoder, (*tensors, *scalars)))
    if steps is None or torch.compiler.is_compiling() or isinstance(steps, FakeTensor):
        return -1, width
    return max(int(steps.sum()), 1), width


def _call(encoder: bool, arguments: Sequence[Any]) -> Call:
    left = iter(arguments)

    def take(count: int) -> tuple[Any, ...]:
        return tuple(next(left) for _ in range(count))

    noise, image = next(left), next(left) if encoder else None
    labels, lengths, steps = take(3)
    weights = DrawWeights(*take(len(DrawWeights._fields)))
    n_read = next(left) if encoder else 0
    n_write, *options, bfloat16 = take(7)
    frames = False if encoder else next(left)
    return Call(
        noise, image, labels, lengths, steps, weights, n_read, n_write, tuple(options), bfloat16, frames, tuple(left)
    )


def _compute_dtype(noise):
    return torch.float64 if noise.dtype == torch.float64 else torch.float32


def _rounded(weights):
    """The weights with which the kernels multiply in bfloat16; the gradient passes through unrounded."""
    return DrawWeights(*(w if w is None or w.dim() != 2 else w + (w.bfloat16() - w).detach() for w in weights))


def _reference(encoder, *arguments):
    call = _call(encoder, arguments)
    tanh_prior, standard_first, log_variance, per_axis, eps = call.options
    options = {
        "prior_activation": "tanh" if tanh_prior else "linear",
        "first_prior": "standard" if standard_first else "learned",
        "log_variance": log_variance,
        "stride": "per_axis" if per_axis else "max",
        "eps": eps,
        "n_write": call.n_write or None,
        "steps": call.steps,
    }
    weights = _rounded(call.weights) if call.bfloat16 else call.weights
    if encoder:
        options["n_read"] = call.n_read or None
        return tuple(reference.draw_rollout(weights, call.image, call.labels, call.lengths, call.noise, **options))
    return reference.draw_generate(weights, call.labels, call.lengths, call.noise, frames=call.frames, **options)


def _split_bwd(encoder, arguments):
    """The gradients of the outputs, and the flat arguments of the forward op with what is wanted."""
    outputs = 3 if encoder else 1
    return arguments[:outputs], arguments[outputs + 1 :]


def _reference_bwd(encoder, *arguments):
    """In plain PyTorch, and in float32 at least."""
    grads, flat = _split_bwd(encoder, arguments)
    call = _call(encoder, flat)
    places = [k for k, x in enumerate(flat) if isinstance(x, Tensor) and x.is_floating_point()]
    with torch.enable_grad():
        inputs = [flat[k] if flat[k].requires_grad else flat[k].detach().requires_grad_() for k in places]
        given = list(flat)
        for k, x in zip(places, inputs, strict=True):
            given[k] = x.to(_compute_dtype(call.noise))
        outputs = _reference(encoder, *given)
        outputs = [x.to(call.noise.dtype) for x in (outputs if isinstance(outputs, tuple) else (outputs,))]
        found = torch.autograd.grad(outputs, inputs, grads, create_graph=True, allow_unused=True)
    gradients = dict(zip(places, found, strict=True))
    of = _call(encoder, [gradients.get(k) for k in range(len(flat))])
    results = zip((*_inputs(encoder, of), *of.weights), (*call.rest, *(True for _ in of.weights)), strict=True)
    return tuple(call.noise.new_empty(0) if x is None or not wanted else x for x, wanted in results)


def _inputs(encoder, call):
    """Those that may have a gradient, in the order of the backward op's results."""
    return (call.image, call.labels, call.noise) if encoder else (call.labels, call.noise)


def _fake(encoder, *arguments):
    call = _call(encoder, arguments)
    rows, width = call.rest
    T, B, _Z = call.noise.shape
    shape = (B, *call.weights.canvas0.shape)
    kept = (T * B if rows < 0 else rows, width)
    saved = call.noise.new_empty(kept, dtype=_compute_dtype(call.noise))
    if encoder:
        return call.noise.new_empty(B), call.noise.new_empty(T, B), call.noise.new_empty(shape), saved
    return call.noise.new_empty((T, *shape) if call.frames else shape), saved


def _saved_width(call):
    """Elements of a row on the CPU: `record_width` in csrc/cpu/layout.h."""
    panel = 64 // _compute_dtype(call.noise).itemsize

    def width(*parts):
        return sum(-(-part // panel) * panel for part in parts)

    C, H, W = call.weights.canvas0.shape
    U, Z = call.weights.dec_hh.shape[1], call.noise.shape[2]
    D, A = (0, 0) if call.labels is None else (call.labels.shape[2], call.weights.align_v.shape[0])
    patch, window = (C * call.n_write**2, 5) if call.n_write else (C * H * W, 0)
    total = width(A, 2 * Z, 4 * U, Z + D, patch, window, U, U, C * H * W)
    if call.image is None:
        return total
    glimpse, window = (2 * C * call.n_read**2, 5) if call.n_read else (2 * C * H * W, 0)
    return total + width(window, 4 * U, glimpse, U, 2 * Z, U, U)


def _fake_bwd(encoder, *arguments):
    _grads, flat = _split_bwd(encoder, arguments)
    call = _call(encoder, flat)
    absent = {"align": call.labels is None, "read": not call.n_read, "write": not call.n_write}
    absent |= dict.fromkeys(("enc", "posterior", "h0_enc"), not encoder)

    def gradient(name, weight):
        if weight is None or absent.get(name.split("_")[0], False) or absent.get(name, False):
            return call.noise.new_empty(0)
        return weight.new_empty(weight.shape)

    inputs = zip(_inputs(encoder, call), call.rest, strict=True)
    found = [call.noise.new_empty(x.shape if wanted else 0) for x, wanted in inputs]
    return *found, *map(gradient, DrawWeights._fields, call.weights)


def _backward(encoder, bwd, grads, tensors, scalars, needs):
    *tensors, saved = tensors
    flat = (*tensors, *scalars[:-2])
    call = _call(encoder, flat)
    T, B, _Z = call.noise.shape
    canvas = (B, *call.weights.canvas0.shape)
    shapes = ((B,), (T, B), canvas) if encoder else ((T, *canvas) if call.frames else canvas,)
    grads = [call.noise.new_zeros(shape) if g is None else g for g, shape in zip(grads, shapes, strict=True)]
    wanted = _inputs(encoder, _call(encoder, (*needs, *scalars[:-2])))
    found = iter(bwd(*grads, saved, *flat, *(bool(need) for need in wanted)))

    def of(x):
        gradient = next(found)
        return None if x is None or gradient.shape != x.shape else gradient

    image = (of(call.image),) if encoder else ()
    dlabels, dnoise = of(call.labels), of(call.noise)
    return dnoise, *image, dlabels, None, None, *map(of, call.weights)


def _op(encoder: bool) -> Op:
    name = "draw_rollout" if encoder else "draw_generate"
    image, n_read, frames = ("Tensor image, ", "int n_read, ", "") if encoder else ("", "", ", bool frames")
    weights = "".join(f", Tensor? {name}" for name in DrawWeights._fields)
    gradients = "".join(f", Tensor d{name}" for name in DrawWeights._fields)
    outputs = "Tensor nll, Tensor kl, Tensor canvas" if encoder else "Tensor canvas"
    doutputs = "Tensor dnll, Tensor dkl, Tensor dcanvas" if encoder else "Tensor dcanvas"
    inputs = ("dimage", "dlabels", "dnoise") if encoder else ("dlabels", "dnoise")
    flat = (
        f"Tensor noise, {image}Tensor? labels, Tensor? lengths, Tensor? steps{weights}, {n_read}int n_write, "
        f"bool tanh_prior, bool standard_first, bool log_variance, bool per_axis, float eps, bool bfloat16{frames}"
    )
    return Op(
        name,
        "rollout",
        partial(_reference, encoder),
        Native(
            frozenset({"cuda", "triton", "cpu"}),
            f"({flat}, int saved_rows, int saved_width) -> ({outputs}, Tensor saved)",
            f"({doutputs}, Tensor saved, {flat}{''.join(f', bool need_{x}' for x in inputs)})"
            f" -> ({', '.join(f'Tensor {x}' for x in inputs)}{gradients})",
            partial(_fake, encoder),
            partial(_fake_bwd, encoder),
            (5 if encoder else 4) + len(DrawWeights._fields),
            partial(_backward, encoder),
            partial(_reference_bwd, encoder),
            kept=1,
            batched=False,
            refusal=partial(persistent.refusal, encoder),
            work=_work,
        ),
    )


_draw_rollout, _draw_generate = _op(encoder=True), _op(encoder=False)
