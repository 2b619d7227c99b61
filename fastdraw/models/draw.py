"""DRAW and its conditional relatives as one model: DRAW, alignDRAW, rnnDRAW and seqDRAW differ in settings."""

import math
from typing import Any, Literal, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from .. import ops
from ..ops import DrawOutput, DrawTrace, DrawWeights
from .labels import DigitVectors, LabelEncoder, LastState, WordStates

LARGEST = 1_000_000  # of any size, so that all products of sizes are 64-bit integers
NEAR_ZERO = ("posterior", "prior", "read_window", "write_window")


class DrawConfig(BaseModel):
    """Sizes and kind of a model; the defaults are seqDRAW's (paper 000, Table I), else alignDRAW's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["draw"] = "draw"
    hidden: int = Field(400, ge=1, le=LARGEST, description="units of each LSTM")
    latent: int = Field(100, ge=1, le=LARGEST, description="size of z")
    n_read: int = Field(8, ge=0, le=LARGEST, description="side of the read glimpse; 0: reads whole images")
    n_write: int = Field(8, ge=0, le=LARGEST, description="side of the written patch; 0: writes whole canvases")
    labels: Literal["digits", "last", "words", "none"] = Field(
        "digits",
        description="what a step knows of its labels: attends to digits (seqDRAW), an LSTM's last state (rnnDRAW), "
        "attends to the states of a bidirectional LSTM (alignDRAW), nothing (DRAW)",
    )
    label_hidden: int = Field(50, ge=1, le=LARGEST, description="units of the LSTM over the labels, per direction")
    symbols: int = Field(10, ge=1, le=LARGEST, description="number of different labels: digits, or words")
    positions: int = Field(10, ge=1, le=LARGEST, description="size of the one-hot position in a digit's vector")
    count_from: Literal["left", "right"] = Field("left", description="the end of a sequence that positions count from")
    align: int = Field(512, ge=1, le=LARGEST, description="width of the attention's scoring layer")
    steps_per_label: int = Field(10, ge=1, le=LARGEST, description="time steps per label, k of T = k L")
    steps_per_image: int = Field(
        0, ge=0, le=LARGEST, description="time steps T of every image; 0: steps_per_label each"
    )
    height: int = Field(32, ge=1, le=LARGEST, description="of the image in pixels")
    width: int = Field(64, ge=1, le=LARGEST, description="of the image in pixels")
    channels: int = Field(1, ge=1, le=LARGEST, description="of the image")
    stride: Literal["max", "per_axis"] = Field(
        "max", description="spacing of the filters: DRAW's, or one for each axis"
    )
    eps: float = Field(1e-8, gt=0, lt=1, description="added to the sum that a filter is divided by (alignDRAW: 1e-4)")
    prior_activation: Literal["linear", "tanh"] = Field(
        "linear", description="of the prior's outputs (alignDRAW: tanh)"
    )
    first_prior: Literal["learned", "standard"] = Field(
        "learned", description="the prior of the first step: from h0, or N(0, I) (alignDRAW)"
    )
    log_variance: bool = Field(False, description="posterior and prior give log sigma^2 in place of log sigma")


class Draw(nn.Module):
    """Encodes and draws images, conditioned on label sequences or not.

    Weights start normal with variance 1 / fan-in. All states start from learned values: h0 at 0, and the canvas at
    `canvas0`, which `set_canvas` can start from the mean of the data.
    """

    canvas0: Tensor

    def __init__(self, config: DrawConfig):
        super().__init__()
        self.config = config
        self.encoder = _label_encoder(config)
        shapes = _shapes(config, 0 if self.encoder is None else self.encoder.width)
        for name in DrawWeights._fields:
            if name not in shapes:
                continue
            weight = nn.Parameter(torch.zeros(shapes[name]))
            if weight.dim() == 2 or name == "align_v":
                # Windows and Gaussians start close to the same for all images, near the whole image and N(0, I).
                scale = 0.1 if name in NEAR_ZERO else 1.0
                nn.init.normal_(weight, std=scale / math.sqrt(weight.shape[-1]))
            self.register_parameter(name, weight)
        if self.encoder is not None and not self.encoder.attended:
            # Attention over one item is that item, whatever scores it.
            for name, shape in _align_shapes(1, config.hidden, self.encoder.width).items():
                self.register_buffer(name, torch.zeros(shape), persistent=False)

    @property
    def weights(self) -> DrawWeights:
        found = {name: getattr(self, name, None) for name in DrawWeights._fields}
        return DrawWeights(**cast("dict[str, Tensor]", found))

    @property
    def device(self) -> torch.device:
        return self.canvas0.device

    @torch.no_grad()
    def set_canvas(self, mean: Tensor) -> None:
        """Start the canvas from the logit of a mean image (C, H, W) in [0, 1], within +-6 so that gradients flow."""
        self.canvas0.copy_(torch.logit(mean, eps=1e-6).clamp(-6, 6))

    def label_vectors(self, labels: Tensor, lengths: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the steps may attend to: vectors (B, L', D) and how many of them count (B,); None for plain DRAW.

        Raises:
            TypeError: labels or lengths are no int64 tensors.
            ValueError: labels are not (B, L), out of range, or more than there are positions; lengths are not (B,).
        """
        if self.encoder is None:
            return None, None
        return self.encoder(labels, lengths)

    def noise(self, batch: int, length: int, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (T, B, Z) for sequences of up to `length` labels."""
        steps = self.config.steps_per_image or self.config.steps_per_label * length
        shape = (steps, batch, self.config.latent)
        return torch.randn(shape, generator=generator, dtype=self.canvas0.dtype).to(self.canvas0.device)

    def forward(
        self,
        image: Tensor,
        labels: Tensor,
        lengths: Tensor,
        noise: Tensor,
        *,
        trace: bool = False,
        sampled_kl: bool = False,
    ) -> DrawOutput | tuple[DrawOutput, DrawTrace]:
        """Encode and redraw images.

        Args:
            image (B, C, H, W): values in [0, 1].
            labels (B, L): int64, left to right; padded beyond lengths.
            lengths (B,): int64, labels that count.
            noise (T, B, Z): T = steps_per_image, or steps_per_label * L.
            trace: also return a `DrawTrace`.
            sampled_kl: kl is log q(z) - log p(z) of the z that was drawn.
        Returns:
            `DrawOutput`; with trace a pair of it and the trace.
        Raises:
            TypeError, ValueError: as `fastdraw.ops.draw_rollout`, and `label_vectors` about the labels.
        """
        vectors, counts = self.label_vectors(labels, lengths)
        return ops.draw_rollout(
            self.weights,
            image,
            vectors,
            counts,
            noise,
            n_read=self.config.n_read or None,
            steps=self._steps(labels, lengths),
            trace=trace,
            sampled_kl=sampled_kl,
            **self._options(),
        )

    @torch.no_grad()
    def sample(
        self, labels: Tensor, lengths: Tensor, noise: Tensor, *, frames: bool = False, trace: bool = False
    ) -> Tensor | tuple[Tensor, DrawTrace]:
        """Draw images of the labels from the prior.

        Args:
            labels (B, L), lengths (B,), noise (T, B, Z): as in `forward`.
            frames: return the canvas after every step.
            trace: also return a `DrawTrace`.
        Returns:
            canvas (B, C, H, W) in logits, or (T, B, C, H, W) with frames; with trace a pair of it and the trace.
        Raises:
            TypeError, ValueError: as `fastdraw.ops.draw_generate`, and `label_vectors` about the labels.
        """
        vectors, counts = self.label_vectors(labels, lengths)
        return ops.draw_generate(
            self.weights,
            vectors,
            counts,
            noise,
            steps=self._steps(labels, lengths),
            frames=frames,
            trace=trace,
            **self._options(),
        )

    def expected(self, canvas: Tensor) -> Tensor:
        """The image in [0, 1] of a canvas: the mean of p(x | z)."""
        return canvas.sigmoid()

    @torch.no_grad()
    def embed(self, image: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
        """The code (T, B, Z) of images: the noise that `sample` draws their most probable reconstructions from.

        Args, Raises: as in `forward`.
        """
        count, length = labels.shape
        noise = self.noise(count, length).zero_()
        _, trace = cast("tuple[DrawOutput, DrawTrace]", self(image, labels, lengths, noise, trace=True))
        return trace.code

    def _options(self) -> dict[str, Any]:
        config = self.config
        return {
            "n_write": config.n_write or None,
            "stride": config.stride,
            "eps": config.eps,
            "prior_activation": config.prior_activation,
            "first_prior": config.first_prior,
            "log_variance": config.log_variance,
        }

    def _steps(self, labels: Tensor, lengths: Tensor) -> Tensor | None:
        if self.config.steps_per_image:
            return None
        if not torch.compiler.is_compiling() and bool((lengths == labels.shape[1]).all()):
            return None  # all samples take all steps, which is cheaper than masking
        return self.config.steps_per_label * lengths


def _label_encoder(config: DrawConfig) -> LabelEncoder | None:
    if config.labels == "digits":
        return DigitVectors(config.symbols, config.positions, config.count_from)
    if config.labels == "last":
        return LastState(config.symbols, config.label_hidden)
    if config.labels == "words":
        return WordStates(config.symbols, config.label_hidden)
    return None


def _shapes(config: DrawConfig, label: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that a model learns, for label vectors of width `label`."""
    units, latent, channels = config.hidden, config.latent, config.channels
    pixels = channels * config.height * config.width
    glimpse = 2 * (channels * config.n_read**2 or pixels)
    patch = channels * config.n_write**2 or pixels
    shapes: dict[str, tuple[int, ...]] = {
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
        "h0_enc": (units,),
        "h0_dec": (units,),
        "canvas0": (channels, config.height, config.width),
    }
    if config.labels in ("digits", "words"):
        shapes |= _align_shapes(config.align, units, label)
    if config.n_read:
        shapes |= {"read_window": (5, units), "read_window_bias": (5,)}
    if config.n_write:
        shapes |= {"write_window": (5, units), "write_window_bias": (5,)}
    return shapes


def _align_shapes(align: int, units: int, label: int) -> dict[str, tuple[int, ...]]:
    return {
        "align_query": (align, units),
        "align_bias": (align,),
        "align_key": (align, label),
        "align_v": (align,),
    }
