"""The loss of a VAE on a whole set of images, each taken once, split into its parts and into numbers of z."""

from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw import ops
from fastdraw.models import Vae

SEED = 0
CHUNK = 1000  # images that go through the model at once


class Losses(NamedTuple):
    """Of N images: nll (N,), KL of every number of z (N, Z), both in nats, and mu of q(z | x) (N, Z); on the CPU."""

    nll: Tensor
    kl: Tensor
    mu: Tensor


@torch.no_grad()
def image_losses(model: Vae, images: Tensor, chunk: int = CHUNK) -> Losses:
    """Measure images (N, C, H, W) uint8 with one sample of z for each, the same ones every time.

    Args:
        model: in evaluation mode, on any device.
        chunk: images that go through the model at once; losses do not depend on it but for rounding.
    """
    # Drawn for all at once, so that the noise of an image owes nothing to its chunk.
    noise = model.noise(len(images), generator=torch.Generator().manual_seed(SEED))
    parts = []
    for part, of_part in zip(images.split(chunk), noise.split(chunk, dim=1), strict=True):
        image = part.to(model.device).float() / 255
        nll = model(image, None, None, of_part).nll
        mu, log_sigma = model.posterior(image)
        parts.append(Losses(nll.cpu(), kl_by_number(mu, log_sigma).cpu(), mu.cpu()))
    return Losses(*map(torch.cat, zip(*parts, strict=True)))


def kl_by_number(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of every number, in nats and in the shape of both."""
    return ops.gaussian_kl(mu.reshape(-1, 1), log_sigma.reshape(-1, 1)).view_as(mu)
