"""The whole recurrence of (conditional) DRAW as one op: T steps of read, encode, sample, decode and write.

One step, from the states of the step before:

    y      = additive_attention(W_a h_dec + b_a, U_a d, d, v_a, lengths)
    r      = draw_read(x, canvas, W_read h_dec + b, n_read)
    prior  = W_p h_dec + b_p                                                  (mu_p, log_sigma_p)
    h_enc  = LSTM_enc([r, h_dec], h_enc)
    post   = W_q h_enc + b_q                                                  (mu_q, log_sigma_q)
    z, kl  = sample_kl(post, noise_t, prior)          generating: z = mu_p + sigma_p noise_t, and no encoder
    h_dec  = LSTM_dec([z, y], h_dec)
    canvas = canvas + glimpse_write(W_patch h_dec + b, W_write h_dec + b)

and in the end nll = bernoulli_nll(canvas, x).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from .. import reference
from ..checks import check_counts, check_tensors, check_window_options
from ..reference.rollout import DrawOutput, DrawTrace, DrawWeights, Options, StepOps
from . import autocast
from .attention import _additive_attention
from .glimpse import draw_read, glimpse_write
from .latent import sample_kl
from .likelihood import bernoulli_nll
from .lstm import lstm_step
from .op import Native, Op


def _attend(*arguments: Tensor | None) -> tuple[Tensor, Tensor]:
    # The rollout has checked lengths once for all its steps.
    return _additive_attention(*autocast.to_lower(*arguments))


_STEP = StepOps(_attend, draw_read, lstm_step, sample_kl, glimpse_write, bernoulli_nll)


def draw_rollout(
    weights: DrawWeights,
    image: Tensor,
    labels: Tensor | None,
    lengths: Tensor | None,
    noise: Tensor,
    *,
    n_read: int | None,
    n_write: int | None,
    steps: Tensor | None = None,
    trace: bool = False,
    **options: Any,
) -> DrawOutput | tuple[DrawOutput, DrawTrace]:
    """Encode and redraw images over T steps (paper 000, eq. 3-20; Gregor et al. 2015).

    Differentiable in weights, image, labels and noise. The bound on log p(image | labels), in nats, is
    -(nll + kl.sum(0)).

    Under autocast to bfloat16 the kernels round the matrices as they read them: weights, results and gradients stay
    float32.

    Args:
        weights: `DrawWeights`, which says the shape of each tensor.
        image (B, C, H, W): values in [0, 1].
        labels (B, L, D): one vector per item of the sequence; None for plain DRAW.
        lengths (B,): int64 or int32, items that count, 1 <= lengths <= L; None for all.
        noise (T, B, Z): standard normal; its first size is the number of steps.
        n_read: side of the read glimpse; None to read whole images.
        n_write: side of the written patch; None to write whole canvases.
        steps (B,): int64 or int32, 0 <= steps <= T: a sample stops after so many steps, its canvas freezes and its
            later KL is 0; all T by default.
        trace: also return what happened at every step; the steps are then called one by one, which takes longer.
        prior_activation: "linear", or "tanh" on both halves of the prior's outputs (alignDRAW).
        first_prior: "learned", or "standard" for N(0, I) at the first step (alignDRAW).
        log_variance: the 2Z outputs of prior and posterior are (mu, log sigma^2) instead of (mu, log sigma).
        stride, eps: of the filterbank, as in `glimpse_read`.
    Returns:
        `DrawOutput` of nll (B,), kl (T, B) and canvas (B, C, H, W) in logits; with trace a pair of it and `DrawTrace`.
    Raises:
        TypeError: an argument has the wrong dtype, float dtypes differ, or an option has no such name.
        ValueError: any mismatch of shape or device, weights that do not fit the options, or a value out of range.
    """
    image, labels, noise = autocast.to_float32(image, labels, noise)
    weights = DrawWeights(*autocast.to_float32(*weights))
    _check_options("draw_rollout", options)
    _check("draw_rollout", weights, labels, lengths, noise, n_write, steps, image=image, n_read=n_read)
    if trace or _steps_one_by_one(_draw_rollout, noise):
        return reference.draw_rollout(
            weights,
            image,
            labels,
            lengths,
            noise,
            n_read=n_read,
            n_write=n_write,
            steps=steps,
            trace=trace,
            step_ops=_STEP,
            **options,
        )
    saved = _saved_shape(weights, noise, image, labels, steps, n_read, n_write)
    tensors = noise, image, labels, lengths, steps, *weights
    scalars = n_read or 0, n_write or 0, *_flat(options), _multiplies_in_bfloat16(noise)
    return DrawOutput(*_draw_rollout(*tensors, *scalars, *saved)[:3])


def draw_generate(
    weights: DrawWeights,
    labels: Tensor | None,
    lengths: Tensor | None,
    noise: Tensor,
    *,
    n_write: int | None,
    steps: Tensor | None = None,
    frames: bool = False,
    trace: bool = False,
    **options: Any,
) -> Tensor | tuple[Tensor, DrawTrace]:
    """Draw images from the prior over T steps (paper 000, eq. 3-10).

    Args:
        weights, labels, lengths, n_write, steps, options: as in `draw_rollout`; the encoder's weights are not used.
        noise (T, B, Z): standard normal; zeros draw the mean path.
        frames: return the canvas after every step.
        trace: as in `draw_rollout`.
    Returns:
        canvas (B, C, H, W) in logits, or (T, B, C, H, W) with frames; with trace a pair of it and a `DrawTrace`.
    Raises:
        As `draw_rollout`.
    """
    labels, noise = autocast.to_float32(labels, noise)
    weights = DrawWeights(*autocast.to_float32(*weights))
    _check_options("draw_generate", options)
    _check("draw_generate", weights, labels, lengths, noise, n_write, steps)
    if trace or _steps_one_by_one(_draw_generate, noise):
        return reference.draw_generate(
            weights,
            labels,
            lengths,
            noise,
            n_write=n_write,
            steps=steps,
            frames=frames,
            trace=trace,
            step_ops=_STEP,
            **options,
        )
    saved = _saved_shape(weights, noise, None, labels, steps, None, n_write)
    tensors = noise, labels, lengths, steps, *weights
    scalars = n_write or 0, *_flat(options), _multiplies_in_bfloat16(noise), frames
    return _draw_generate(*tensors, *scalars, *saved)[0]


def _steps_one_by_one(op: Op, noise: Tensor) -> bool:
    """Whether a call runs as a loop over the ops of a step: there is no kernel, or torch.func looks into the loop."""
    return op.backend(noise) == "reference" or torch._C._are_functorch_transforms_active()


def _multiplies_in_bfloat16(noise: Tensor) -> bool:
    """Whether products take their matrices in bfloat16, to which the kernels round float32 as they pack it."""
    if noise.dtype == torch.float32 and autocast.is_enabled(noise.device.type):
        return torch.get_autocast_dtype(noise.device.type) == torch.bfloat16
    return noise.dtype == torch.bfloat16


def _check_options(op: str, options: dict[str, Any]) -> None:
    unknown = options.keys() - set(Options._fields)
    if unknown:
        raise TypeError(f"{op}: no option {sorted(unknown)[0]!r}; there are {', '.join(Options._fields)}")
    chosen = Options(**options)
    if chosen.prior_activation not in ("linear", "tanh"):
        raise ValueError(f"{op}: prior_activation must be 'linear' or 'tanh', got {chosen.prior_activation!r}")
    if chosen.first_prior not in ("learned", "standard"):
        raise ValueError(f"{op}: first_prior must be 'learned' or 'standard', got {chosen.first_prior!r}")
    check_window_options(op, 1, chosen.stride, chosen.eps)


def _check(
    op: str,
    weights: DrawWeights,
    labels: Tensor | None,
    lengths: Tensor | None,
    noise: Tensor,
    n_write: int | None,
    steps: Tensor | None,
    *,
    image: Tensor | None = None,
    n_read: int | None = None,
) -> None:
    has_part = {"align": labels is not None, "read": n_read is not None, "write": n_write is not None}
    for name in SHAPES:
        part = name.split("_")[0]
        if getattr(weights, name) is None and has_part.get(part, True):
            raise ValueError(f"{op}: weights.{name} is None, but {_WHY_NEEDED.get(part, 'every model has it')}")
    shapes = SHAPES if labels is not None else {name: shape for name, shape in SHAPES.items() if "align" not in name}
    named = {f"weights.{name}": (getattr(weights, name), f"{shape}?") for name, shape in shapes.items()}
    image_shape = "B C H W" if op == "draw_rollout" else "B C H W?"
    sizes = check_tensors(op, noise=(noise, "T B Z"), image=(image, image_shape), labels=(labels, "B L D?"), **named)
    sizes.setdefault("D", 0)
    for name in ("read", "write"):
        side = n_read if name == "read" else n_write
        if side is not None:
            check_window_options(op, side, "max", 1.0)
    if sizes["T"] < 1:
        raise ValueError(f"{op}: noise must hold at least one step, got T = 0")
    if labels is not None and sizes["L"] < 1:
        raise ValueError(f"{op}: labels must hold at least one item, got L = 0")
    if labels is None and lengths is not None:
        raise ValueError(f"{op}: lengths count the items of labels, and labels is None; leave both out")
    pixels = sizes["C"] * sizes["H"] * sizes["W"]
    widths = {
        "dec_ih": ("F", sizes["Z"] + sizes["D"], "Z + D"),
        "patch": (
            "P",
            pixels if n_write is None else sizes["C"] * n_write**2,
            "C n_write^2, or C H W without attention",
        ),
    }
    if image is not None:
        glimpse = 2 * (pixels if n_read is None else sizes["C"] * n_read**2)
        widths["enc_ih"] = ("E", glimpse + sizes["U"], "2 C n_read^2 + U, or 2 C H W + U without attention")
    for name, (letter, expected, formula) in widths.items():
        if sizes[letter] != expected:
            came = tuple(getattr(weights, name).shape)
            raise ValueError(f"{op}: weights.{name} must have {letter} = {formula} = {expected}, got {came}")
    if labels is not None:
        check_counts(op, "lengths", lengths, sizes["B"], 1, sizes["L"], noise.device)
    check_counts(op, "steps", steps, sizes["B"], 0, sizes["T"], noise.device)


_WHY_NEEDED = {
    "align": "the call has labels",
    "read": "the call has a read glimpse (n_read)",
    "write": "the call has a written patch (n_write)",
}

# E, F and P depend on the call; `_check` knows how.
SHAPES = {
    "align_query": "A U",
    "align_bias": "A",
    "align_key": "A D",
    "align_v": "A",
    "read_window": "5 U",
    "read_window_bias": "5",
    "enc_ih": "4U E",
    "enc_hh": "4U U",
    "enc_bias": "4U",
    "posterior": "2Z U",
    "posterior_bias": "2Z",
    "prior": "2Z U",
    "prior_bias": "2Z",
    "dec_ih": "4U F",
    "dec_hh": "4U U",
    "dec_bias": "4U",
    "patch": "P U",
    "patch_bias": "P",
    "write_window": "5 U",
    "write_window_bias": "5",
    "h0_enc": "U",
    "h0_dec": "U",
    "canvas0": "C H W",
}


def _flat(options: dict[str, Any]) -> tuple[Any, ...]:
    """Options as the kernels take them: tanh_prior, standard_first, log_variance, per_axis, eps."""
    chosen = Options(**options)
    return (
        chosen.prior_activation == "tanh",
        chosen.first_prior == "standard",
        chosen.log_variance,
        chosen.stride == "per_axis",
        chosen.eps,
    )


def _options(scalars: Sequence[Any]) -> dict[str, Any]:
    """The opposite of `_flat`."""
    tanh_prior, standard_first, log_variance, per_axis, eps = scalars
    return {
        "prior_activation": "tanh" if tanh_prior else "linear",
        "first_prior": "standard" if standard_first else "learned",
        "log_variance": log_variance,
        "stride": "per_axis" if per_axis else "max",
        "eps": eps,
    }


def _compute_dtype(noise: Tensor) -> torch.dtype:
    return torch.float64 if noise.dtype == torch.float64 else torch.float32


def _saved_shape(
    weights: DrawWeights,
    noise: Tensor,
    image: Tensor | None,
    labels: Tensor | None,
    steps: Tensor | None,
    n_read: int | None,
    n_write: int | None,
) -> tuple[int, int]:
    """Of what the forward pass keeps: a row for every step of a sample (`Record` in csrc/cpu/recurrence.h), or none."""
    tensors = noise, image, labels, *weights
    if not torch.is_grad_enabled() or not any(x is not None and x.requires_grad for x in tensors):
        return 0, 0
    panel = 64 // _compute_dtype(noise).itemsize

    def width(*parts: int) -> int:
        return sum(-(-part // panel) * panel for part in parts)

    channels, height, wide = weights.canvas0.shape
    pixels, units, latent = channels * height * wide, weights.dec_hh.shape[1], noise.shape[2]
    items = 0 if labels is None else labels.shape[2]
    scores = 0 if labels is None or weights.align_v is None else weights.align_v.shape[0]
    patch = channels * n_write**2 if n_write else pixels
    total = width(scores, 2 * latent, 4 * units, latent + items, patch, 5 if n_write else 0, units, units, pixels)
    if image is not None:
        glimpse = 2 * (channels * n_read**2 if n_read else pixels)
        total += width(5 if n_read else 0, 4 * units, glimpse, units, 2 * latent, units, units)
    if steps is None or torch.compiler.is_compiling() or isinstance(steps, FakeTensor):
        return noise.shape[0] * noise.shape[1], total
    return int(steps.sum()), total


def _rounded(weights):
    """The weights with which the kernels multiply in bfloat16; the gradient passes through unrounded."""
    return [w if w is None or w.dim() != 2 else w + (w.bfloat16() - w).detach() for w in weights]


def _reference_rollout(noise, image, labels, lengths, steps, *rest):
    weights, (n_read, n_write, *options, bfloat16) = rest[:WEIGHTS], rest[WEIGHTS : WEIGHTS + 8]
    weights = DrawWeights(*_rounded(weights) if bfloat16 else weights)
    given = {"n_read": n_read or None, "n_write": n_write or None, "steps": steps, **_options(options)}
    return tuple(reference.draw_rollout(weights, image, labels, lengths, noise, **given))


def _reference_generate(noise, labels, lengths, steps, *rest):
    weights, (n_write, *options, bfloat16, frames) = rest[:WEIGHTS], rest[WEIGHTS : WEIGHTS + 8]
    weights = DrawWeights(*_rounded(weights) if bfloat16 else weights)
    given = {"n_write": n_write or None, "steps": steps, "frames": frames, **_options(options)}
    return reference.draw_generate(weights, labels, lengths, noise, **given)


def _reference_bwd(function, grads, tensors, scalars):
    """Gradients of the float tensors, in plain PyTorch and in float32 at least; None for the other tensors."""
    dtype, compute = tensors[0].dtype, _compute_dtype(tensors[0])
    places = [k for k, x in enumerate(tensors) if x is not None and x.is_floating_point()]
    with torch.enable_grad():
        inputs = [tensors[k] if tensors[k].requires_grad else tensors[k].detach().requires_grad_() for k in places]
        given = list(tensors)
        for k, x in zip(places, inputs, strict=True):
            given[k] = x.to(compute)
        outputs = function(*given, *scalars)
        outputs = [x.to(dtype) for x in (outputs if isinstance(outputs, tuple) else (outputs,))]
        found = torch.autograd.grad(outputs, inputs, grads, create_graph=True, allow_unused=True)
    gradients = dict(zip(places, found, strict=True))
    return [gradients.get(k) for k in range(len(tensors))]


def _or_empty(gradient, wanted, noise):
    return noise.new_empty(0) if gradient is None or not wanted else gradient


def _reference_rollout_bwd(dnll, dkl, dcanvas, saved, noise, *rest):
    scalars, needs = rest[WEIGHTS + 4 : -3], rest[-3:]
    dnoise, dimage, dlabels, _lengths, _steps, *dweights = _reference_bwd(
        _reference_rollout, (dnll, dkl, dcanvas), (noise, *rest[: WEIGHTS + 4]), scalars
    )
    found = zip((dimage, dlabels, dnoise, *dweights), (*needs, *[True] * WEIGHTS), strict=True)
    return tuple(_or_empty(gradient, wanted, noise) for gradient, wanted in found)


def _reference_generate_bwd(dcanvas, saved, noise, *rest):
    scalars, needs = rest[WEIGHTS + 3 : -2], rest[-2:]
    dnoise, dlabels, _lengths, _steps, *dweights = _reference_bwd(
        _reference_generate, (dcanvas,), (noise, *rest[: WEIGHTS + 3]), scalars
    )
    found = zip((dlabels, dnoise, *dweights), (*needs, *[True] * WEIGHTS), strict=True)
    return tuple(_or_empty(gradient, wanted, noise) for gradient, wanted in found)


def _fake_saved(noise, rows, width):
    return noise.new_empty(rows, width, dtype=_compute_dtype(noise))


def _fake_rollout(noise, image, labels, lengths, steps, *rest):
    steps_taken, batch, _latent = noise.shape
    nll, kl = noise.new_empty(batch), noise.new_empty(steps_taken, batch)
    return nll, kl, noise.new_empty(image.shape), _fake_saved(noise, *rest[-2:])


def _fake_generate(noise, labels, lengths, steps, *rest):
    canvas0, (frames, *saved) = DrawWeights(*rest[:WEIGHTS]).canvas0, rest[-3:]
    shape = (noise.shape[1], *canvas0.shape)
    return noise.new_empty((noise.shape[0], *shape) if frames else shape), _fake_saved(noise, *saved)


def _fake_gradients(noise, weights, labels, n_read, n_write, encoder):
    """Those of the weights; empty for a weight that the call has no use for."""
    absent = {"align": labels is None, "read": not n_read, "write": not n_write}
    absent |= dict.fromkeys(("enc", "posterior", "h0_enc"), not encoder)
    return [
        noise.new_empty(0)
        if weight is None or absent.get(name.split("_")[0], False) or absent.get(name, False)
        else weight.new_empty(weight.shape)
        for name, weight in zip(DrawWeights._fields, weights, strict=True)
    ]


def _fake_rollout_bwd(dnll, dkl, dcanvas, saved, noise, image, labels, lengths, steps, *rest):
    n_read, n_write, *_options = rest[WEIGHTS:-3]
    inputs = zip((image, labels, noise), rest[-3:], strict=True)
    found = [noise.new_empty(x.shape if wanted else 0) for x, wanted in inputs]
    return *found, *_fake_gradients(noise, rest[:WEIGHTS], labels, n_read, n_write, True)


def _fake_generate_bwd(dcanvas, saved, noise, labels, lengths, steps, *rest):
    inputs = zip((labels, noise), rest[-2:], strict=True)
    found = [noise.new_empty(x.shape if wanted else 0) for x, wanted in inputs]
    return *found, *_fake_gradients(noise, rest[:WEIGHTS], labels, 0, rest[WEIGHTS], False)


def _none_if_empty(gradients, tensors):
    pairs = zip(gradients, tensors, strict=True)
    return [None if x is None or gradient.shape != x.shape else gradient for gradient, x in pairs]


def _backward_rollout(bwd, grads, tensors, scalars, needs):
    *tensors, saved = tensors
    noise, image, labels, _lengths, _steps, *weights = tensors
    shapes = noise.shape[1:2], noise.shape[:2], image.shape
    grads = [noise.new_zeros(shape) if g is None else g for g, shape in zip(grads, shapes, strict=True)]
    found = bwd(*grads, saved, *tensors, *scalars[:-2], needs[1], needs[2], needs[0])
    dimage, dlabels, dnoise, *dweights = _none_if_empty(found, (image, labels, noise, *weights))
    return dnoise, dimage, dlabels, None, None, *dweights


def _backward_generate(bwd, grads, tensors, scalars, needs):
    *tensors, saved = tensors
    noise, labels, _lengths, _steps, *weights = tensors
    shape = noise.shape[0 if scalars[-3] else 1 : 2] + DrawWeights(*weights).canvas0.shape  # of frames, or a canvas
    grads = [noise.new_zeros(shape) if g is None else g for g in grads]
    found = bwd(*grads, saved, *tensors, *scalars[:-2], needs[1], needs[0])
    dlabels, dnoise, *dweights = _none_if_empty(found, (labels, noise, *weights))
    return dnoise, dlabels, None, None, *dweights


WEIGHTS = len(DrawWeights._fields)
_TENSORS = "Tensor noise, {image}Tensor? labels, Tensor? lengths, Tensor? steps" + "".join(
    f", Tensor? {name}" for name in DrawWeights._fields
)
_SCALARS = (
    "int n_write, bool tanh_prior, bool standard_first, bool log_variance, bool per_axis, float eps, bool bfloat16"
)
_ROLLOUT = f"{_TENSORS.format(image='Tensor image, ')}, int n_read, {_SCALARS}"
_GENERATE = f"{_TENSORS.format(image='')}, {_SCALARS}, bool frames"
_GRADIENTS = "".join(f", Tensor d{name}" for name in DrawWeights._fields)

_draw_rollout = Op(
    "draw_rollout",
    "rollout",
    _reference_rollout,
    Native(
        frozenset({"cpu"}),
        f"({_ROLLOUT}, int saved_rows, int saved_width) -> (Tensor nll, Tensor kl, Tensor canvas, Tensor saved)",
        f"(Tensor dnll, Tensor dkl, Tensor dcanvas, Tensor saved, {_ROLLOUT}, bool need_dimage, bool need_dlabels,"
        f" bool need_dnoise) -> (Tensor dimage, Tensor dlabels, Tensor dnoise{_GRADIENTS})",
        _fake_rollout,
        _fake_rollout_bwd,
        5 + WEIGHTS,
        _backward_rollout,
        _reference_rollout_bwd,
        kept=1,
    ),
)

_draw_generate = Op(
    "draw_generate",
    "rollout",
    _reference_generate,
    Native(
        frozenset({"cpu"}),
        f"({_GENERATE}, int saved_rows, int saved_width) -> (Tensor canvas, Tensor saved)",
        f"(Tensor dcanvas, Tensor saved, {_GENERATE}, bool need_dlabels, bool need_dnoise)"
        f" -> (Tensor dlabels, Tensor dnoise{_GRADIENTS})",
        _fake_generate,
        _fake_generate_bwd,
        4 + WEIGHTS,
        _backward_generate,
        _reference_generate_bwd,
        kept=1,
    ),
)
