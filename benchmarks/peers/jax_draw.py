"""The model in JAX, as its users write it: pure functions, `jit`, and `lax.scan` over the steps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, nn

from benchmarks.work import Work
from fastdraw.models import Draw

Weights = dict[str, Array]
EPS = 1e-8


def filterbank(window: Array, n: int, size: tuple[int, int]) -> tuple[Array, Array, Array]:
    """fy (B, n, H), fx (B, n, W) and gamma (B,) of windows (B, 5)."""
    height, width = size
    gx, gy, log_sigma2, log_delta, log_gamma = window.T
    gx, gy = (width + 1) / 2 * (gx + 1) - 1, (height + 1) / 2 * (gy + 1) - 1
    delta = (max(size) - 1) / max(n - 1, 1) * jnp.exp(log_delta)

    def filters(centre: Array, length: int) -> Array:
        mu = centre[:, None] + (jnp.arange(n) - (n - 1) / 2) * delta[:, None]
        squared = (jnp.arange(length) - mu[:, :, None]) ** 2
        e = jnp.exp(-squared / (2 * jnp.exp(log_sigma2)[:, None, None]))
        return e / (e.sum(-1, keepdims=True) + EPS)

    return filters(gy, height), filters(gx, width), jnp.exp(log_gamma)


def draw_read(image: Array, canvas: Array, window: Array, n: int) -> Array:
    """The glimpse of the image and of the error image: (B, 2 C n n)."""
    fy, fx, gamma = filterbank(window, n, image.shape[-2:])
    both = jnp.concatenate([image, image - nn.sigmoid(canvas)], axis=1)
    patch = jnp.einsum("bih,bchw,bjw->bcij", fy, both, fx)
    return (gamma[:, None, None, None] * patch).reshape(len(image), -1)


def glimpse_write(patch: Array, window: Array, size: tuple[int, int]) -> Array:
    """Patches (B, C, n, n) on an empty canvas (B, C, H, W)."""
    fy, fx, gamma = filterbank(window, patch.shape[-1], size)
    return jnp.einsum("bih,bcij,bjw->bchw", fy, patch, fx) / gamma[:, None, None, None]


def attend(query: Array, keys: Array, values: Array, v: Array, lengths: Array) -> Array:
    """The context (B, D)."""
    scores = jnp.tanh(query[:, None] + keys) @ v
    counts = jnp.arange(keys.shape[1]) < lengths[:, None]
    weights = nn.softmax(jnp.where(counts, scores, -jnp.inf))
    return jnp.einsum("bl,bld->bd", weights, values)


def lstm(gates: Array, c: Array) -> tuple[Array, Array]:
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
    return nn.sigmoid(o) * jnp.tanh(c), c


def linear(w: Weights, name: str, x: Array) -> Array:
    return x @ w[name].T + w[f"{name}_bias"]


def attend_labels(w: Weights, keys: Array, labels: Array, lengths: Array, h: Array) -> Array:
    return attend(h @ w["align_query"].T + w["align_bias"], keys, labels, w["align_v"], lengths)


def decode(w: Weights, z: Array, y: Array, h: Array, c: Array, canvas: Array) -> tuple[Array, Array, Array]:
    """One step of the decoder: h', c' and the canvas."""
    gates = jnp.concatenate([z, y], axis=1) @ w["dec_ih"].T + h @ w["dec_hh"].T + w["dec_bias"]
    h, c = lstm(gates, c)
    channels, *size = canvas.shape[1:]
    patch = linear(w, "patch", h)
    n = round((patch.shape[1] / channels) ** 0.5)
    written = glimpse_write(patch.reshape(-1, channels, n, n), linear(w, "write_window", h), tuple(size))
    return h, c, canvas + written


def start(w: Weights, batch: int) -> tuple[Array, Array, Array]:
    """h, c of the decoder and the canvas."""
    h = jnp.broadcast_to(w["h0_dec"], (batch, *w["h0_dec"].shape))
    return h, jnp.zeros_like(h), jnp.broadcast_to(w["canvas0"], (batch, *w["canvas0"].shape))


def loss(w: Weights, image: Array, labels: Array, lengths: Array, noise: Array, n_read: int) -> Array:
    """Mean negative bound over the batch, in nats."""
    keys = labels @ w["align_key"].T

    def step(state: tuple[Array, ...], noise: Array) -> tuple[tuple[Array, ...], Array]:
        h_enc, c_enc, h, c, canvas = state
        y = attend_labels(w, keys, labels, lengths, h)
        r = draw_read(image, canvas, linear(w, "read_window", h), n_read)
        mu_p, log_sigma_p = jnp.split(linear(w, "prior", h), 2, axis=1)
        gates = jnp.concatenate([r, h], axis=1) @ w["enc_ih"].T + h_enc @ w["enc_hh"].T + w["enc_bias"]
        h_enc, c_enc = lstm(gates, c_enc)
        mu_q, log_sigma_q = jnp.split(linear(w, "posterior", h_enc), 2, axis=1)
        z = mu_q + jnp.exp(log_sigma_q) * noise
        log_ratio = 2 * (log_sigma_q - log_sigma_p)
        gap = (mu_q - mu_p) * jnp.exp(-log_sigma_p)
        kl = (gap**2 + jnp.exp(log_ratio) - log_ratio - 1).sum(1) / 2
        return (h_enc, c_enc, *decode(w, z, y, h, c, canvas)), kl

    batch = len(image)
    h_enc = jnp.broadcast_to(w["h0_enc"], (batch, *w["h0_enc"].shape))
    (*_, canvas), kl = lax.scan(step, (h_enc, jnp.zeros_like(h_enc), *start(w, batch)), noise)
    nll = (nn.softplus(canvas) - image * canvas).sum((1, 2, 3))
    return (nll + kl.sum(0)).mean()


def generate(w: Weights, labels: Array, lengths: Array, noise: Array) -> Array:
    """Canvas logits (B, C, H, W), drawn from the prior."""
    keys = labels @ w["align_key"].T

    def step(state: tuple[Array, ...], noise: Array) -> tuple[tuple[Array, ...], None]:
        h, c, canvas = state
        mu, log_sigma = jnp.split(linear(w, "prior", h), 2, axis=1)
        z = mu + jnp.exp(log_sigma) * noise
        return decode(w, z, attend_labels(w, keys, labels, lengths, h), h, c, canvas), None

    (*_, canvas), _ = lax.scan(step, start(w, labels.shape[0]), noise)
    return canvas


def training_step(work: Work) -> Callable[[], Any]:
    """A call that gives the loss and the gradient of every weight."""
    model, inputs = work.model(), work.inputs()
    arguments = arrays(model), *map(as_array, (inputs.image, model.label_vectors(inputs.digits, inputs.lengths)[0]))
    arguments += as_array(inputs.lengths), as_array(inputs.noise)
    step = jax.jit(jax.value_and_grad(partial(loss, n_read=model.config.n_read)))
    return lambda: jax.block_until_ready(step(*arguments))


def drawing(work: Work) -> Callable[[], Any]:
    model, inputs = work.model(), work.inputs()
    labels = as_array(model.label_vectors(inputs.digits, inputs.lengths)[0])
    arguments = arrays(model), labels, as_array(inputs.lengths), as_array(inputs.noise)
    draw = jax.jit(generate)
    return lambda: jax.block_until_ready(draw(*arguments))


def arrays(model: Draw) -> Weights:
    return {name: as_array(weight) for name, weight in model.weights._asdict().items()}


def as_array(tensor: Any) -> Array:
    return jnp.asarray(np.asarray(tensor.detach()))
