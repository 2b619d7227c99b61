"""How sharp images are, and how far from their originals (the claim of paper 003).

Images are (B, C, H, W) in [0, 1], results (B,) float64. A sharp image need not be a right one, and one of noise is
sharper than any photograph: a measure says something beside the same measure of real images and the distance to them.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from fastdraw.errors import FastdrawError
from fastdraw.models import Vae

CHUNK = 100  # images at once
HIGH = 0.25  # cycles per pixel, half of the highest frequency that an image has along a row or a column
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales of MS-SSIM (Wang, Simoncelli and Bovik 2003)
WINDOW = 11  # pixels, of SSIM
HAZE = 0.05  # a grey that is hardly told from black

Values = dict[str, Tensor]


def gradient_energy(images: Tensor) -> Tensor:
    """The mean squared difference of horizontal neighbours plus that of vertical ones.

    Raises:
        FastdrawError: not images of at least 2 x 2 pixels.
    """
    _check(images, 2)
    across, down = (images.double().diff(dim=dim).square().mean((1, 2, 3)) for dim in (3, 2))
    return across + down


def high_frequency_power(images: Tensor, above: float = HIGH) -> Tensor:
    """The part of the mean squared pixel that is of spatial frequencies above a radius in cycles per pixel.

    Frequencies are those of the orthonormal DCT-II, k/(2 N) cycles per pixel for k < N, which takes an image for
    mirrored at its edges: a Fourier transform would add the jump from one edge to the opposite one. All frequencies
    together have the mean squared pixel.

    Raises:
        FastdrawError: as `gradient_energy`.
    """
    _check(images, 2)
    height, width = images.shape[-2:]
    rows, columns = _cosines(height).to(images.device), _cosines(width).to(images.device)
    power = (rows @ images.double() @ columns.T).square()
    radius = torch.hypot(*torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")) / 2
    return (power * (radius > above).to(power)).mean(1).sum((1, 2)) / (height * width)


def ms_ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Multi-scale structural similarity to the originals: 1 for the same image, 0 or more for others.

    Of its five scales as many are taken as fit into the image (28 x 28: two; 128 x 128: four), their weights rescaled.

    Raises:
        FastdrawError: not images of at least 11 x 11 pixels.
    """
    _check(images, WINDOW)
    shortest = min(images.shape[-2:])
    # torchmetrics asks for this many pixels.
    fitting = [n for n in range(1, len(WEIGHTS) + 1) if shortest // max(1, n - 1) ** 2 >= WINDOW]
    chosen = WEIGHTS[: fitting[-1]]
    weights = tuple(weight / sum(chosen) for weight in chosen)
    return multiscale_structural_similarity_index_measure(
        images.double(), originals.double(), data_range=1.0, betas=weights, reduction="none"
    ).reshape(-1)


def ms_ssim_cut(images: Tensor, originals: Tensor) -> Tensor:
    """`ms_ssim` of images and originals whose pixels below `HAZE` are set to 0.

    On a flat black ground, such as most of a digit's image is, SSIM is low for a haze that is not seen.
    """
    return ms_ssim(*(torch.where(pixels < HAZE, 0, pixels) for pixels in (images, originals)))


def measure_images(images: Tensor) -> Values:
    """Both measures of how sharp images are, by name, on the CPU; raises as they do."""
    return _in_chunks({"gradient_energy": gradient_energy, "high_frequency_power": high_frequency_power}, images)


def compare_images(images: Tensor, originals: Tensor) -> Values:
    """MS-SSIM both ways, and means over pixels and channels of |x - y| and (x - y)^2, by name; raises as `ms_ssim`."""
    return _in_chunks({"ms_ssim": ms_ssim, "ms_ssim_cut": ms_ssim_cut, "l1": _l1, "l2": _l2}, images, originals)


@torch.no_grad()
def redraw_stages(model: Vae, images: Tensor) -> Tensor:
    """What each stage of a VAE makes of z = mu of images (B, C, H, W): (stages, B, C, H, W), on the CPU.

    They are as `Vae.decode` returns them: `Vae.expected` brings those that are images into [0, 1].
    """
    parts = []
    for part in images.split(CHUNK):
        outputs = model.decode(model.embed(part.to(model.device))[0])
        parts.append(torch.stack([output.cpu() for output in outputs]))
    return torch.cat(parts, 1)


def _in_chunks(measures: Mapping[str, Callable[..., Tensor]], *images: Tensor) -> Values:
    parts = list(zip(*(tensor.split(CHUNK) for tensor in images), strict=True))
    return {name: torch.cat([measure(*part).cpu() for part in parts]) for name, measure in measures.items()}


def _l1(images: Tensor, originals: Tensor) -> Tensor:
    return (images.double() - originals).abs().mean((1, 2, 3))


def _l2(images: Tensor, originals: Tensor) -> Tensor:
    return (images.double() - originals).square().mean((1, 2, 3))


def _cosines(size: int) -> Tensor:
    """The orthonormal DCT-II (size, size) float64, a row for each frequency k/(2 size)."""
    places = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * places[:, None] * (places + 0.5))
    basis[0] /= math.sqrt(2)
    return basis * math.sqrt(2 / size)


def _check(images: Tensor, least: int) -> None:
    if images.dim() != 4 or min(images.shape[-2:]) < least:
        raise FastdrawError(
            f"images must be (B, C, H, W) of at least {least} x {least} pixels, got {tuple(images.shape)}"
        )
