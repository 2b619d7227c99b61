"""The recurrence of (conditional) DRAW over all its steps: the one loop over time (paper 000, eq. 3-17)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from .attention import additive_attention
from .glimpse import draw_read, glimpse_write
from .latent import sample_kl
from .likelihood import bernoulli_nll
from .lstm import lstm_step


class DrawWeights(NamedTuple):
    """Weights of a rollout in nn.Linear layout (out x in); parts that a model lacks are None."""

    align_query: Tensor | None  # (A, U)     without labels: the four align_* are None
    align_bias: Tensor | None  # (A,)
    align_key: Tensor | None  # (A, D)
    align_v: Tensor | None  # (A,)
    read_window: Tensor | None  # (5, U)     without read attention: both read_* are None
    read_window_bias: Tensor | None  # (5,)
    enc_ih: Tensor  # (4U, R + U), R = 2 C n_read^2, or 2 C H W without read attention
    enc_hh: Tensor  # (4U, U)
    enc_bias: Tensor  # (4U,)
    posterior: Tensor  # (2Z, U)
    posterior_bias: Tensor  # (2Z,)
    prior: Tensor  # (2Z, U)
    prior_bias: Tensor  # (2Z,)
    dec_ih: Tensor  # (4U, Z + D), (4U, Z) without labels
    dec_hh: Tensor  # (4U, U)
    dec_bias: Tensor  # (4U,)
    patch: Tensor  # (P, U), P = C n_write^2, or C H W without write attention
    patch_bias: Tensor  # (P,)
    write_window: Tensor | None  # (5, U)    without write attention: both write_* are None
    write_window_bias: Tensor | None  # (5,)
    h0_enc: Tensor  # (U,)
    h0_dec: Tensor  # (U,)
    canvas0: Tensor  # (C, H, W)


class DrawOutput(NamedTuple):
    """nll (B,) and kl (T, B) in nats; canvas (B, C, H, W) in logits."""

    nll: Tensor
    kl: Tensor
    canvas: Tensor


class DrawTrace(NamedTuple):
    """What happened at every step; None where a model lacks the part."""

    attention: Tensor | None  # (T, B, L)
    read_window: Tensor | None  # (T, B, 5), raw
    write_window: Tensor | None  # (T, B, 5), raw
    canvas: Tensor  # (T, B, C, H, W), logits after each step
    code: Tensor  # (T, B, Z), (z - mu_p) / sigma_p: the noise that the prior draws the same z from


class StepOps(NamedTuple):
    """The ops that one step calls, so that the same loop runs on any implementation of them."""

    additive_attention: Callable[..., Any] = additive_attention
    draw_read: Callable[..., Any] = draw_read
    lstm_step: Callable[..., Any] = lstm_step
    sample_kl: Callable[..., Any] = sample_kl
    glimpse_write: Callable[..., Any] = glimpse_write
    bernoulli_nll: Callable[..., Any] = bernoulli_nll


REFERENCE_STEP = StepOps()


class Options(NamedTuple):
    """What the relatives of conditional DRAW do differently."""

    prior_activation: str = "linear"  # "tanh": on both halves of the prior's outputs (alignDRAW)
    first_prior: str = "learned"  # "standard": N(0, I) at the first step (alignDRAW)
    log_variance: bool = False  # the 2Z outputs are (mu, log sigma^2)
    stride: str = "max"
    eps: float = 1e-8


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
    step_ops: StepOps = REFERENCE_STEP,
    **options: Any,
) -> DrawOutput | tuple[DrawOutput, DrawTrace]:
    """Encode and redraw `image`; arguments as in fastdraw.ops.draw_rollout, options as in `Options`."""
    recurrence = _Recurrence(weights, labels, lengths, n_read, n_write, steps, Options(**options), step_ops)
    h_enc = weights.h0_enc.expand(image.shape[0], -1)
    c_enc = torch.zeros_like(h_enc)
    state = recurrence.start(image.shape[0])
    kls, records = [], []
    for t in range(noise.shape[0]):
        y, alpha = recurrence.attend(state)
        r, read_window = recurrence.read(image, state)
        mu_p, log_sigma_p = recurrence.prior(state, t)
        enc_input = torch.cat([r, state.h], dim=1)
        h_enc, c_enc = step_ops.lstm_step(enc_input, (h_enc, c_enc), weights.enc_ih, weights.enc_hh, weights.enc_bias)
        mu_q, log_sigma_q = recurrence.gaussian(linear(h_enc, weights.posterior, weights.posterior_bias))
        z, kl = step_ops.sample_kl(mu_q, log_sigma_q, noise[t], mu_p, log_sigma_p)
        state, write_window = recurrence.write(state, z, y, t)
        kls.append(kl if steps is None else torch.where(t < steps, kl, 0.0))
        if trace:
            code = (z - mu_p) * (-log_sigma_p).exp()
            records.append((alpha, read_window, write_window, state.canvas, code))
    output = DrawOutput(step_ops.bernoulli_nll(state.canvas, image), torch.stack(kls), state.canvas)
    return (output, _trace(records)) if trace else output


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
    step_ops: StepOps = REFERENCE_STEP,
    **options: Any,
) -> Tensor | tuple[Tensor, DrawTrace]:
    """Draw from the prior; arguments as in fastdraw.ops.draw_generate, options as in `Options`."""
    recurrence = _Recurrence(weights, labels, lengths, None, n_write, steps, Options(**options), step_ops)
    state = recurrence.start(noise.shape[1])
    records: list[tuple[Tensor | None, ...]] = []
    for t in range(noise.shape[0]):
        y, alpha = recurrence.attend(state)
        mu_p, log_sigma_p = recurrence.prior(state, t)
        z = mu_p + log_sigma_p.exp() * noise[t]
        state, write_window = recurrence.write(state, z, y, t)
        if trace or frames:
            records.append((alpha, None, write_window, state.canvas, noise[t]))
    canvas = _trace(records).canvas if frames else state.canvas
    return (canvas, _trace(records)) if trace else canvas


class _State(NamedTuple):
    h: Tensor  # (B, U), of the decoder
    c: Tensor  # (B, U)
    canvas: Tensor  # (B, C, H, W), logits


class _Recurrence:
    """The parts of a step that encoding and generating share."""

    def __init__(
        self,
        weights: DrawWeights,
        labels: Tensor | None,
        lengths: Tensor | None,
        n_read: int | None,
        n_write: int | None,
        steps: Tensor | None,
        options: Options,
        ops: StepOps,
    ):
        self.weights, self.labels, self.lengths, self.steps = weights, labels, lengths, steps
        self.n_read, self.n_write, self.options, self.ops = n_read, n_write, options, ops
        self.grid = {"stride": options.stride, "eps": options.eps}
        self.keys = None if labels is None else _affine(labels, weights.align_key)  # (B, L, A), once per rollout

    def start(self, batch: int) -> _State:
        h = self.weights.h0_dec.expand(batch, -1)
        return _State(h, torch.zeros_like(h), self.weights.canvas0.expand(batch, -1, -1, -1))

    def attend(self, state: _State) -> tuple[Tensor | None, Tensor | None]:
        if self.keys is None:
            return None, None
        query = _affine(state.h, self.weights.align_query, self.weights.align_bias)
        return self.ops.additive_attention(query, self.keys, self.labels, self.weights.align_v, self.lengths)

    def read(self, image: Tensor, state: _State) -> tuple[Tensor, Tensor | None]:
        if self.n_read is None:
            return torch.cat([image, image - torch.sigmoid(state.canvas)], dim=1).flatten(1), None
        window = _affine(state.h, self.weights.read_window, self.weights.read_window_bias)
        return self.ops.draw_read(image, state.canvas, window, self.n_read, **self.grid), window

    def prior(self, state: _State, t: int) -> tuple[Tensor, Tensor]:
        outputs = linear(state.h, self.weights.prior, self.weights.prior_bias)
        if self.options.prior_activation == "tanh":
            outputs = torch.tanh(outputs)
        if self.options.first_prior == "standard" and t == 0:
            outputs = torch.zeros_like(outputs)
        return self.gaussian(outputs)

    def gaussian(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_sigma = outputs.chunk(2, dim=1)
        return mu, log_sigma / 2 if self.options.log_variance else log_sigma

    def write(self, state: _State, z: Tensor, y: Tensor | None, t: int) -> tuple[_State, Tensor | None]:
        w = self.weights
        dec_input = z if y is None else torch.cat([z, y], dim=1)
        h, c = self.ops.lstm_step(dec_input, (state.h, state.c), w.dec_ih, w.dec_hh, w.dec_bias)
        patch = linear(h, w.patch, w.patch_bias)
        size, window = tuple(state.canvas.shape[-2:]), None
        if self.n_write is None:
            canvas = state.canvas + patch.view_as(state.canvas)
        else:
            window = _affine(h, w.write_window, w.write_window_bias)
            patch = patch.unflatten(1, (-1, self.n_write, self.n_write))
            canvas = self.ops.glimpse_write(patch, window, size, canvas=state.canvas, **self.grid)
        if self.steps is not None:
            canvas = torch.where((t < self.steps)[:, None, None, None], canvas, state.canvas)
        return _State(h, c, canvas), window


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None = None) -> Tensor:
    assert weight is not None, "weights lack a part that the call has"
    return linear(x, weight, bias)


def _trace(records: Sequence[tuple[Tensor | None, ...]]) -> DrawTrace:
    columns = zip(*records, strict=True)
    return DrawTrace(*(None if column[0] is None else torch.stack(column) for column in columns))  # type: ignore[arg-type]
