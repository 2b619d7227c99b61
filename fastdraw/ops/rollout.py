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

from typing import Any

import torch
from torch import Tensor

from .. import reference
from ..checks import check_counts, check_tensors, check_window_options
from ..reference.rollout import DrawOutput, DrawTrace, DrawWeights, Options, StepOps
from . import autocast
from .attention import _additive_attention
from .glimpse import draw_read, glimpse_write
from .latent import sample_kl
from .likelihood import bernoulli_nll
from .lstm import lstm_step
from .rollout_native import _draw_generate, _draw_rollout, flat_options, multiplies_in_bfloat16, saved_shape


def _attend(*arguments: Tensor | None) -> tuple[Tensor, Tensor]:
    # The rollout has checked lengths once for all its steps.
    return _additive_attention(*autocast.to_lower(*arguments))


_STEP = StepOps(_attend, draw_read, lstm_step, sample_kl, glimpse_write, bernoulli_nll)
_STEP_OF_SAMPLED_KL = _STEP._replace(sample_kl=reference.sample_log_ratio)


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
    sampled_kl: bool = False,
    **options: Any,
) -> DrawOutput | tuple[DrawOutput, DrawTrace]:
    """Encode and redraw images over T steps (paper 000, eq. 3-20; Gregor et al. 2015).

    Differentiable in weights, image, labels and noise. The bound on log p(image | labels), in nats, is
    -(nll + kl.sum(0)).

    Under autocast to bfloat16 the kernels round the matrices as they read them: weights, results and gradients stay
    float32. Autocast to another dtype leaves them as they are.

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
        sampled_kl: kl is log q(z) - log p(z) of the z that was drawn, whose mean over the noise is the KL; the mean of
            exp(-(nll + kl.sum(0))) is then p(image | labels) itself. Steps are called one by one, as for a trace.
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
    tensors = noise, image, labels, lengths, steps, *weights
    scalars = n_read or 0, n_write or 0, *flat_options(options), multiplies_in_bfloat16(noise)
    backend = _draw_rollout.backend(*tensors, *scalars, 0, 0)
    if trace or sampled_kl or _steps_one_by_one(backend):
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
            step_ops=_STEP_OF_SAMPLED_KL if sampled_kl else _STEP,
            **options,
        )
    saved = saved_shape(True, backend, tensors, scalars, steps)
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
    tensors = noise, labels, lengths, steps, *weights
    scalars = n_write or 0, *flat_options(options), multiplies_in_bfloat16(noise), frames
    backend = _draw_generate.backend(*tensors, *scalars, 0, 0)
    if trace or _steps_one_by_one(backend):
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
    saved = saved_shape(False, backend, tensors, scalars, steps)
    return _draw_generate(*tensors, *scalars, *saved)[0]


def _steps_one_by_one(backend: str) -> bool:
    """Whether a call runs as a loop over the ops of a step: there is no kernel, or torch.func looks into the loop."""
    return backend == "reference" or torch._C._are_functorch_transforms_active()


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
    empty = [letter for letter in "CHWUZ" + ("DA" if labels is not None else "") if sizes[letter] < 1]
    if empty:
        raise ValueError(f"{op}: only the batch may be empty, got {' = '.join(empty)} = 0")
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
