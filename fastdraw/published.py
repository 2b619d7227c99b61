"""Every op at the sizes of paper 000: the calls that are compiled ahead of time, counted and tuned."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from . import ops

# Samples, channels, height, width, side of a glimpse; items, label, alignment and hidden units, latent size.
B, C, H, W, N = 128, 1, 32, 64, 8
L, D, A, U, Z = 3, 20, 512, 400, 100

# What training takes no gradient of.
DATA = ("image", "target", "noise")


class Call:
    """A call of a public op, forward and backward.

    Args:
        op: its name.
        dtype, device: of its tensors.
        learns_data: whether gradients flow to the data as well.
        steps: T of a rollout.
    """

    def __init__(self, op: str, dtype: torch.dtype, device: torch.device, learns_data: bool = False, steps: int = 3):
        self.function: Callable[..., Any] = getattr(ops, op)
        self.arguments = _arguments(op, dtype, device, steps)
        learned = [x for name, x in self.arguments.items() if learns_data or name not in DATA]
        self.inputs = [x.requires_grad_() for x in _tensors(learned) if x.is_floating_point()]

    def forward(self) -> list[Tensor]:
        return list(_tensors(self.function(**self.arguments)))

    def backward(self, outputs: list[Tensor]) -> None:
        """The gradients of all inputs; may be called again with the same outputs."""
        grads = [torch.ones_like(y) for y in outputs]
        torch.autograd.grad(outputs, self.inputs, grads, retain_graph=True, allow_unused=True)


def _tensors(x: Any) -> Iterator[Tensor]:
    """All tensors of nested tuples, in order."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (tuple, list)):
        for y in x:
            yield from _tensors(y)


def _arguments(op: str, dtype: torch.dtype, device: torch.device, steps: int) -> dict[str, Any]:
    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape)).to(device, dtype)

    def linear(*shape: int) -> Tensor:
        return normal(*shape, scale=shape[-1] ** -0.5)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape).to(device, dtype)

    def lengths() -> Tensor:
        return torch.arange(B, device=device) % L + 1

    def window() -> Tensor:
        return normal(B, 5, scale=0.25)

    def posterior() -> dict[str, Tensor]:
        return {"mu_q": normal(B, Z), "log_sigma_q": normal(B, Z), "mu_p": normal(B, Z), "log_sigma_p": normal(B, Z)}

    def drawing() -> dict[str, Any]:
        weights = ops.DrawWeights(
            align_query=linear(A, U),
            align_bias=normal(A),
            align_key=linear(A, D),
            align_v=linear(A),
            read_window=linear(5, U),
            read_window_bias=normal(5, scale=0.25),
            enc_ih=linear(4 * U, 2 * C * N * N + U),
            enc_hh=linear(4 * U, U),
            enc_bias=normal(4 * U),
            posterior=linear(2 * Z, U),
            posterior_bias=normal(2 * Z),
            prior=linear(2 * Z, U),
            prior_bias=normal(2 * Z),
            dec_ih=linear(4 * U, Z + D),
            dec_hh=linear(4 * U, U),
            dec_bias=normal(4 * U),
            patch=linear(C * N * N, U),
            patch_bias=normal(C * N * N),
            write_window=linear(5, U),
            write_window_bias=normal(5, scale=0.25),
            h0_enc=normal(U),
            h0_dec=normal(U),
            canvas0=normal(C, H, W),
        )
        labels, noise = normal(B, L, D), normal(steps, B, Z)
        return {"weights": weights, "labels": labels, "lengths": lengths(), "noise": noise, "n_write": N}

    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "gaussian_filterbank": lambda: {"window": window(), "n": N, "size": (H, W)},
        "glimpse_read": lambda: {"image": uniform(B, C, H, W), "window": window(), "n": N},
        "glimpse_write": lambda: {
            "patch": normal(B, C, N, N),
            "window": window(),
            "size": (H, W),
            "canvas": normal(B, C, H, W),
        },
        "draw_read": lambda: {
            "image": uniform(B, C, H, W),
            "canvas": normal(B, C, H, W),
            "window": window(),
            "n": N,
        },
        "additive_attention": lambda: {
            "query": normal(B, A),
            "keys": normal(B, L, A),
            "values": normal(B, L, D),
            "v": linear(A),
            "lengths": lengths(),
        },
        "lstm_gates": lambda: {"gates": normal(B, 4 * U), "c": normal(B, U)},
        "lstm_step": lambda: {
            "input": normal(B, 2 * C * N * N + U),
            "state": (normal(B, U), normal(B, U)),
            "w_ih": linear(4 * U, 2 * C * N * N + U),
            "w_hh": linear(4 * U, U),
            "b_ih": normal(4 * U),
            "b_hh": normal(4 * U),
        },
        "gaussian_kl": posterior,
        "sample_kl": lambda: {**posterior(), "noise": normal(B, Z)},
        "bernoulli_nll": lambda: {"logits": normal(B, C, H, W), "target": uniform(B, C, H, W)},
        "gaussian_nll": lambda: {
            "mean": normal(B, C, H, W),
            "log_sigma": normal(B, C, H, W),
            "target": uniform(B, C, H, W),
        },
        "draw_rollout": lambda: {**drawing(), "image": uniform(B, C, H, W), "n_read": N},
        "draw_generate": drawing,
    }
    return makers[op]()
