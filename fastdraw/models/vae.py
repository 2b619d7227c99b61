"""Variational auto-encoders as one model: VAE, residual and multi-stage VAE differ in settings.

They are the one-step case of the models that draw: noise is (1, B, Z), KL (1, B), and labels are taken and not used,
so that all that measures or draws with a `Draw` does so with a `Vae`.
"""

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from .. import ops
from .convolutions import ConvDecoder, ConvEncoder, Refiner
from .draw import LARGEST


class VaeConfig(BaseModel):
    """Sizes and kind of a VAE; the defaults are those of paper 001, section 3.1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["vae"] = "vae"
    latent: int = Field(64, ge=1, le=LARGEST, description="size of z")
    network: Literal["mlp", "conv"] = Field("mlp", description="layers of encoder and decoder")
    hidden: tuple[int, ...] = Field(
        (256, 256), min_length=1, description="units of the MLP's hidden layers, encoder's order"
    )
    widths: tuple[int, ...] = Field(
        (64, 128, 256), min_length=1, description="channels of the convolutions, which each halve the image"
    )
    convs: int = Field(1, ge=1, le=16, description="convolutions for each of the widths; the last one halves the image")
    refiners: int = Field(0, ge=0, le=64, description="networks of residual blocks after the decoder, one per stage")
    blocks: int = Field(5, ge=1, le=1024, description="residual blocks of each of them")
    refiner_width: int = Field(64, ge=1, le=LARGEST, description="channels within the residual blocks")
    likelihood: Literal["bernoulli", "gaussian"] = Field("bernoulli", description="p(x | z)")
    likelihood_of: Literal["first", "last"] = Field(
        "last", description="the stage whose image is the mean of p(x | z): the decoder's own, or the last refiner's"
    )
    sigma: float = Field(1.0, gt=0, lt=1e6, description="standard deviation of a Gaussian p(x | z), at the start")
    learned_sigma: bool = Field(False, description="learn sigma, one for all pixels")
    height: int = Field(28, ge=1, le=LARGEST, description="of the image in pixels")
    width: int = Field(28, ge=1, le=LARGEST, description="of the image in pixels")
    channels: int = Field(1, ge=1, le=LARGEST, description="of the image")

    @model_validator(mode="after")
    def _check(self) -> "VaeConfig":
        for name in ("hidden", "widths"):
            if not all(1 <= size <= LARGEST for size in getattr(self, name)):
                raise ValueError(f"model.{name} must be sizes from 1 to {LARGEST}, got {getattr(self, name)}")
        if self.likelihood == "bernoulli" and self.learned_sigma:
            raise ValueError("model.learned_sigma needs model.likelihood gaussian: a Bernoulli p(x | z) has no sigma")
        if self.likelihood == "bernoulli" and self.refiners:
            raise ValueError("model.refiners need model.likelihood gaussian, whose mean is an image to refine")
        if self.refiners and self.height * self.width == 1:
            raise ValueError("model.refiners need images of more than one pixel, as their batch norm is over pixels")
        return self


class VaeOutput(NamedTuple):
    """nll (B,) and kl (1, B) in nats; canvas (B, C, H, W), logits where p(x | z) is Bernoulli, else unbounded images.

    Stages are what the decoder and every refiner made, the coarse one first and the canvas last.
    """

    nll: Tensor
    kl: Tensor
    canvas: Tensor
    stages: tuple[Tensor, ...]


class Vae(nn.Module):
    """Encodes an image as q(z | x) = N(mu, diag sigma^2), decodes z to p(x | z); the prior is N(0, I)."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        self.config = config
        shape = (config.channels, config.height, config.width)
        if config.network == "mlp":
            pixels = math.prod(shape)
            self.encoder: nn.Module = nn.Sequential(nn.Flatten(), *_mlp(pixels, *config.hidden, 2 * config.latent))
            self.decoder: nn.Module = nn.Sequential(
                *_mlp(config.latent, *reversed(config.hidden), pixels), nn.Unflatten(1, shape)
            )
        else:
            self.encoder = ConvEncoder(shape, config.widths, config.convs, 2 * config.latent)
            self.decoder = ConvDecoder(config.latent, config.widths, shape)
        self.refiners = nn.ModuleList(
            Refiner(config.channels, config.refiner_width, config.blocks) for _ in range(config.refiners)
        )
        log_sigma = torch.tensor(math.log(config.sigma))
        if config.learned_sigma:
            self.log_sigma = nn.Parameter(log_sigma)
        else:
            self.register_buffer("log_sigma", log_sigma, persistent=False)

    @property
    def device(self) -> torch.device:
        return self.log_sigma.device

    def noise(self, batch: int, length: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Standard normal noise (1, B, Z), whatever the number of labels."""
        shape = (1, batch, self.config.latent)
        return torch.randn(shape, generator=generator, dtype=self.log_sigma.dtype).to(self.device)

    def posterior(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """mu and log sigma of q(z | x), both (B, Z), for images (B, C, H, W) with values in [0, 1]."""
        self._check_image(image)
        mu, log_sigma = self.encoder(image).chunk(2, dim=1)
        return mu, log_sigma

    def decode(self, z: Tensor) -> tuple[Tensor, ...]:
        """What the decoder and each refiner make of z (B, Z), coarse first; the canvas (B, C, H, W) is the last.

        Raises:
            ValueError: z is not (B, Z).
        """
        if z.dim() != 2 or z.shape[1] != self.config.latent:
            raise ValueError(f"z must have shape (B, {self.config.latent}), got {tuple(z.shape)}")
        outputs = [self.decoder(z)]
        for refiner in self.refiners:
            outputs.append(refiner(outputs[-1]))
        return tuple(outputs)

    def expected(self, canvas: Tensor) -> Tensor:
        """The mean of p(x | z), in [0, 1], of what `decode` returns."""
        return canvas.sigmoid() if self.config.likelihood == "bernoulli" else canvas.clamp(0, 1)

    @torch.no_grad()
    def observe(self, canvas: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw x (B, C, H, W) from the p(x | z) of a canvas: pixels of 0 or 1, or the canvas + sigma * noise."""
        if self.config.likelihood == "bernoulli":
            uniform = torch.rand(canvas.shape, generator=generator, dtype=canvas.dtype).to(canvas.device)
            return (uniform < canvas.sigmoid()).to(canvas.dtype)
        noise = torch.randn(canvas.shape, generator=generator, dtype=canvas.dtype).to(canvas.device)
        return canvas + self.log_sigma.exp().to(canvas.dtype) * noise

    def negative_log_likelihood(self, output: Tensor, image: Tensor) -> Tensor:
        """-log p(x | z) (B,) in nats; the constant is kept, as sigma may be learned (paper 004, section 6.5)."""
        if self.config.likelihood == "bernoulli":
            return ops.bernoulli_nll(output, image)
        return ops.gaussian_nll(output, self.log_sigma.to(output.dtype).expand_as(output), image)

    def forward(
        self,
        image: Tensor,
        labels: Tensor | None,
        lengths: Tensor | None,
        noise: Tensor,
        *,
        sampled_kl: bool = False,
    ) -> VaeOutput:
        """Encode images and decode them again.

        Args:
            image (B, C, H, W): values in [0, 1].
            labels, lengths: not used.
            noise (1, B, Z): z = mu + sigma * noise.
            sampled_kl: kl is log q(z) - log p(z) of the z that was drawn.
        Raises:
            ValueError: image is not (B, C, H, W) of the model's sizes.
        """
        mu, log_sigma = self.posterior(image)
        z, kl = ops.sample_kl(mu, log_sigma, noise[0])
        if sampled_kl:
            kl = (z.square() - noise[0].square()).sum(1) / 2 - log_sigma.sum(1)
        outputs = self.decode(z)
        nll = self.negative_log_likelihood(outputs[0 if self.config.likelihood_of == "first" else -1], image)
        return VaeOutput(nll, kl[None], outputs[-1], outputs)

    @torch.no_grad()
    def sample(self, labels: Tensor | None, lengths: Tensor | None, noise: Tensor) -> Tensor:
        """Draw canvases (B, C, H, W) from the prior: what the decoder makes of z = noise[0]; labels are not used."""
        return self.decode(noise[0])[-1]

    @torch.no_grad()
    def embed(self, image: Tensor, labels: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
        """The code (1, B, Z) of images: the noise that `sample` draws each image's reconstruction from, mu here."""
        return self.posterior(image)[0][None]

    def _check_image(self, image: Tensor) -> None:
        shape = (self.config.channels, self.config.height, self.config.width)
        if image.dim() != 4 or image.shape[1:] != shape:
            raise ValueError(f"image must have shape (B, {', '.join(map(str, shape))}), got {tuple(image.shape)}")


def _mlp(*sizes: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[:-1]
