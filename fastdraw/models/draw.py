"""seqDRAW: conditional DRAW over a sequence of digits (paper 000)."""

import math
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import one_hot

from .. import ops
from ..ops import DrawOutput, DrawTrace, DrawWeights

DIGITS = 10
LARGEST = 1_000_000  # of any size, so that all products of sizes are 64-bit integers


class SeqDrawConfig(BaseModel):
    """Sizes of a seqDRAW; the defaults are Table I of paper 000, and alignDRAW's where the paper is silent."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(400, ge=1, le=LARGEST, description="units of each LSTM")
    latent: int = Field(100, ge=1, le=LARGEST, description="size of z")
    n_read: int = Field(8, ge=1, le=LARGEST, description="side of the read glimpse")
    n_write: int = Field(8, ge=1, le=LARGEST, description="side of the written patch")
    align: int = Field(512, ge=1, le=LARGEST, description="width of the attention's scoring layer")
    steps_per_digit: int = Field(10, ge=1, le=LARGEST, description="time steps per digit, k of T = k L")
    positions: int = Field(10, ge=1, le=LARGEST, description="size of the one-hot position in a label vector")
    count_from: Literal["left", "right"] = Field("left", description="the end of a sequence that positions count from")
    height: int = Field(32, ge=1, le=LARGEST, description="of the image in pixels")
    width: int = Field(64, ge=1, le=LARGEST, description="of the image in pixels")
    channels: int = Field(1, ge=1, le=LARGEST, description="of the image")
    stride: Literal["max", "per_axis"] = Field(
        "max", description="spacing of the filters: DRAW's, or one for each axis"
    )


class SeqDraw(nn.Module):
    """Encodes and draws images of digit sequences.

    The label vector of an item is its digit and its position, both one-hot. Weights start normal with variance
    1 / fan-in. All states start from learned values: h0 at 0, and the canvas at `canvas0`, which `set_canvas` can start
    from the mean of the data.
    """

    canvas0: Tensor

    def __init__(self, config: SeqDrawConfig):
        super().__init__()
        self.config = config
        units, latent = config.hidden, config.latent
        label = DIGITS + config.positions
        glimpse, patch = 2 * config.channels * config.n_read**2, config.channels * config.n_write**2
        shapes = {
            "align_query": (config.align, units),
            "align_bias": (config.align,),
            "align_key": (config.align, label),
            "align_v": (config.align,),
            "read_window": (5, units),
            "read_window_bias": (5,),
            "enc_ih": (4 * units, glimpse + units),
            "enc_hh": (4 * units, units),
            "enc_bias": (4 * units,),
            "posterior": (2 * latent, units),
            "posterior_bias": (2 * latent,),
            "prior": (2 * latent, units),
            "prior_bias": (2 * latent,),
            "dec_ih": (4 * units, latent + label),
            "dec_hh": (4 * units, units),
            "dec_bias": (4 * units,),
            "patch": (patch, units),
            "patch_bias": (patch,),
            "write_window": (5, units),
            "write_window_bias": (5,),
            "h0_enc": (units,),
            "h0_dec": (units,),
            "canvas0": (config.channels, config.height, config.width),
        }
        for name in DrawWeights._fields:
            weight = nn.Parameter(torch.zeros(shapes[name]))
            if weight.dim() == 2 or name == "align_v":
                # Windows and Gaussians start close to the same for all images, near the whole image and N(0, I).
                scale = 0.1 if name in ("posterior", "prior", "read_window", "write_window") else 1.0
                nn.init.normal_(weight, std=scale / math.sqrt(weight.shape[-1]))
            self.register_parameter(name, weight)

    @property
    def weights(self) -> DrawWeights:
        return DrawWeights(*(self.get_parameter(name) for name in DrawWeights._fields))

    @torch.no_grad()
    def set_canvas(self, mean: Tensor) -> None:
        """Start the canvas from the logit of a mean image (C, H, W) in [0, 1], within +-6 so that gradients flow."""
        self.canvas0.copy_(torch.logit(mean, eps=1e-6).clamp(-6, 6))

    def labels(self, digits: Tensor, lengths: Tensor) -> Tensor:
        """Label vectors (B, L, 10 + positions) of digits (B, L), of which lengths (B,) count.

        Raises:
            TypeError: digits or lengths are no int64 tensors.
            ValueError: digits are not (B, L), out of 0..9, or more than there are positions; lengths are not (B,).
        """
        _check_sequences(digits, lengths, self.config.positions)
        position = torch.arange(digits.shape[1], device=digits.device).expand_as(digits)
        if self.config.count_from == "right":
            position = (lengths[:, None] - 1 - position).clamp(min=0)  # padding is masked, any position will do
        vectors = torch.cat([one_hot(digits, DIGITS), one_hot(position, self.config.positions)], dim=-1)
        return vectors.to(self.canvas0.dtype)

    def noise(self, batch: int, length: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (T, B, Z) for sequences of up to `length` digits, T = steps_per_digit * length."""
        shape = (self.config.steps_per_digit * length, batch, self.config.latent)
        return torch.randn(shape, generator=generator, dtype=self.canvas0.dtype).to(self.canvas0.device)

    def forward(
        self, image: Tensor, digits: Tensor, lengths: Tensor, noise: Tensor, *, trace: bool = False
    ) -> DrawOutput | tuple[DrawOutput, DrawTrace]:
        """Encode and redraw images.

        Args:
            image (B, C, H, W): values in [0, 1].
            digits (B, L): int64, left to right; padded beyond lengths.
            lengths (B,): int64, digits that count.
            noise (T, B, Z): T = steps_per_digit * L.
            trace: also return a `DrawTrace`.
        Returns:
            `DrawOutput`; with trace a pair of it and the trace.
        Raises:
            TypeError, ValueError: as `fastdraw.ops.draw_rollout`, and `labels` about the digits.
        """
        config = self.config
        return ops.draw_rollout(
            self.weights,
            image,
            self.labels(digits, lengths),
            lengths,
            noise,
            n_read=config.n_read,
            n_write=config.n_write,
            steps=self._steps(digits, lengths),
            stride=config.stride,
            trace=trace,
        )

    @torch.no_grad()
    def sample(
        self, digits: Tensor, lengths: Tensor, noise: Tensor, *, frames: bool = False, trace: bool = False
    ) -> Tensor | tuple[Tensor, DrawTrace]:
        """Draw images of the digits from the prior.

        Args:
            digits (B, L), lengths (B,), noise (T, B, Z): as in `forward`.
            frames: return the canvas after every step.
            trace: also return a `DrawTrace`.
        Returns:
            canvas (B, C, H, W) in logits, or (T, B, C, H, W) with frames; with trace a pair of it and the trace.
        Raises:
            TypeError, ValueError: as `fastdraw.ops.draw_generate`, and `labels` about the digits.
        """
        return ops.draw_generate(
            self.weights,
            self.labels(digits, lengths),
            lengths,
            noise,
            n_write=self.config.n_write,
            steps=self._steps(digits, lengths),
            frames=frames,
            stride=self.config.stride,
            trace=trace,
        )

    def _steps(self, digits: Tensor, lengths: Tensor) -> Tensor | None:
        if not torch.compiler.is_compiling() and bool((lengths == digits.shape[1]).all()):
            return None  # all samples take all steps, which is cheaper than masking
        return self.config.steps_per_digit * lengths


def _check_sequences(digits: Tensor, lengths: Tensor, most: int) -> None:
    """Check digits (B, L) of at most `most` places and lengths (B,), whose values the rollout checks."""
    for name, given in (("digits", digits), ("lengths", lengths)):
        if not isinstance(given, Tensor) or given.dtype != torch.int64:
            came = str(given.dtype).removeprefix("torch.") if isinstance(given, Tensor) else type(given).__name__
            raise TypeError(f"{name} must be an int64 tensor, got {came}")
    if digits.dim() != 2 or not 1 <= digits.shape[1] <= most:
        raise ValueError(f"digits must have shape (B, L) with 1 <= L <= {most} positions, got {tuple(digits.shape)}")
    if lengths.shape != digits.shape[:1]:
        raise ValueError(
            f"lengths must have shape (B,) with B = {len(digits)} (from digits), got {tuple(lengths.shape)}"
        )
    if digits.numel() == 0 or digits.is_meta or torch.compiler.is_compiling():
        return
    least, greatest = (int(value) for value in digits.aminmax())
    if least < 0 or greatest >= DIGITS:
        raise ValueError(f"digits must lie in 0..{DIGITS - 1}, got {least}..{greatest}")
