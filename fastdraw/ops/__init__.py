"""Differentiable ops of recurrent attention models: fused where a backend has kernels, plain PyTorch elsewhere."""

from ..reference.rollout import DrawOutput, DrawTrace, DrawWeights
from .attention import _additive_attention, additive_attention
from .filterbank import _gaussian_filterbank, gaussian_filterbank
from .glimpse import _draw_read, _glimpse_read, _glimpse_write, draw_read, glimpse_read, glimpse_write
from .latent import _gaussian_kl, _sample_kl, gaussian_kl, sample_kl
from .likelihood import _bernoulli_nll, _gaussian_nll, bernoulli_nll, gaussian_nll
from .lstm import _lstm_gates, _lstm_step, lstm_gates, lstm_step
from .rollout import _draw_generate, _draw_rollout, draw_generate, draw_rollout

# Every op that dispatch serves.
TABLE = (
    _gaussian_filterbank,
    _glimpse_read,
    _glimpse_write,
    _draw_read,
    _additive_attention,
    _lstm_gates,
    _lstm_step,
    _gaussian_kl,
    _sample_kl,
    _bernoulli_nll,
    _gaussian_nll,
    _draw_rollout,
    _draw_generate,
)

__all__ = [
    "DrawOutput",
    "DrawTrace",
    "DrawWeights",
    "additive_attention",
    "bernoulli_nll",
    "draw_generate",
    "draw_read",
    "draw_rollout",
    "gaussian_filterbank",
    "gaussian_kl",
    "gaussian_nll",
    "glimpse_read",
    "glimpse_write",
    "lstm_gates",
    "lstm_step",
    "sample_kl",
]
