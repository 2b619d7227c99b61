"""Every op in plain PyTorch, file for file beside the fast ones: readable, float64, differentiable twice."""

from .attention import additive_attention
from .filterbank import gaussian_filterbank
from .glimpse import draw_read, glimpse_read, glimpse_write
from .latent import gaussian_kl, sample_kl, sample_log_ratio
from .likelihood import bernoulli_nll, gaussian_nll
from .lstm import lstm_gates, lstm_step
from .rollout import DrawOutput, DrawTrace, DrawWeights, draw_generate, draw_rollout

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
    "sample_log_ratio",
]
