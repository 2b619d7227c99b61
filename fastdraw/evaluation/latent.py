"""What is in a code: images as codes, codes as images, the way from one to another, and what each number of one tells.

The code of an image is the noise from which `sample` draws its most probable reconstruction: for a VAE, of one step,
the mean of q(z | x); for DRAW what all steps add to their priors. Codes of B images are (T, B, Z), and N(0, I) is their
prior. Codes and images that are returned lie on the CPU; the model may be on any device.
"""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor

from fastdraw.data import Batch
from fastdraw.errors import FastdrawError
from fastdraw.evaluation.latent_pictures import tsne
from fastdraw.evaluation.losses import kl_by_number
from fastdraw.models import Model, Vae

CHUNK = 100  # images that go through the model at once
ACTIVE = 0.01  # the variance of an active unit (Burda et al. 2016)
FEWEST = 10  # images for t-SNE

Dimension = tuple[int, int]  # a step and a number of its z, both from 0; a VAE has step 0 alone


def embed(model: Model, batch: Batch) -> Tensor:
    """The codes (T, B, Z) of the images of a batch; `Draw` needs their labels, `Vae` does not look at them."""
    parts = zip(*(tensor.split(CHUNK) for tensor in batch), strict=True)
    codes = [model.embed(*(tensor.to(model.device) for tensor in part)).cpu() for part in parts]
    return torch.cat(codes, dim=1)


def decode(model: Model, codes: Tensor, labels: Tensor | None = None, lengths: Tensor | None = None) -> Tensor:
    """The images (B, C, H, W) in [0, 1] that codes (T, B, Z) stand for, of a model with stages those of the last.

    Args:
        labels (B, L), lengths (B,): of the images, for a `Draw`.
    Raises:
        FastdrawError: a `Draw` without labels and lengths.
    """
    if isinstance(model, Vae):
        return decode_stages(model, codes)[-1]
    if labels is None or lengths is None:
        raise FastdrawError("a DRAW model decodes with the labels and lengths of its images: give both")
    parts = zip(codes.split(CHUNK, dim=1), labels.split(CHUNK), lengths.split(CHUNK), strict=True)
    images = []
    for code, of_code, counts in parts:
        canvas = cast(Tensor, model.sample(*(tensor.to(model.device) for tensor in (of_code, counts, code))))
        images.append(model.expected(canvas).cpu())
    return torch.cat(images)


@torch.no_grad()
def decode_stages(model: Vae, codes: Tensor) -> list[Tensor]:
    """What the decoder and each refiner make of codes (1, B, Z): images (B, C, H, W) in [0, 1], coarse first."""
    chunks = [
        [model.expected(output).cpu() for output in model.decode(z.to(model.device))] for z in codes[0].split(CHUNK)
    ]
    return [torch.cat(stage) for stage in zip(*chunks, strict=True)]


def codes_between(first: Tensor, last: Tensor, steps: int, line: bool = False) -> Tensor:
    """The codes (S, T, B, Z) on the way from first to last (T, B, Z), both included, in equal steps.

    The way is an arc around 0, whose distance from 0 goes evenly from that of the one end to that of the other. On a
    line, codes halfway are nearer to 0 than those of images are, and what they decode to is grey where the ends differ
    (docs/vae.md says how much). A line is taken where the ends lie on one line through 0, as codes of one number do.

    Args:
        line: take a line in any case.
    Raises:
        FastdrawError: fewer than two steps.
    """
    if steps < 2:
        raise FastdrawError(f"a way from one image to another takes at least 2 steps, got {steps}")
    share = torch.linspace(0, 1, steps).view(-1, 1, 1, 1)
    straight = torch.lerp(first, last, share)
    if line:
        return straight
    a, b = (code.transpose(0, 1).flatten(1) for code in (first, last))  # (B, T Z)
    norms = [code.norm(dim=1, keepdim=True) for code in (a, b)]
    angle = ((a * b).sum(1, keepdim=True) / (norms[0] * norms[1])).clamp(-1, 1).acos()
    norm = torch.lerp(norms[0], norms[1], share)
    of_first, of_last = (
        norm / own * ((part * angle).sin() / angle.sin()) for own, part in zip(norms, (1 - share, share), strict=True)
    )
    arc = of_first * first + of_last * last
    # An end that is 0 has no angle: it compares as false.
    return torch.where(angle.sin() > 1e-3, arc, straight)


def interpolate(model: Model, first: Batch, last: Batch, steps: int, line: bool = False) -> Tensor:
    """Images (S, B, C, H, W) in [0, 1] on the way from the images of one batch to those of another, as `codes_between`.

    Those at the ends are the reconstructions. Where a model is told labels, an image has those of the nearer end.

    Raises:
        FastdrawError: fewer than two steps, or batches that differ in the number of images or of labels.
    """
    if first.labels.shape != last.labels.shape:
        came = " and ".join(f"{tuple(batch.labels.shape)}" for batch in (first, last))
        raise FastdrawError(f"both ends of a way need as many images with as many labels (B, L), got {came}")
    codes = codes_between(embed(model, first), embed(model, last), steps, line)
    ends = [first if 2 * step < steps else last for step in range(steps)]
    labels, lengths = (torch.cat([end[part] for end in ends]) for part in (1, 2))
    images = decode(model, codes.transpose(0, 1).flatten(1, 2), labels, lengths)
    return images.unflatten(0, (steps, -1))


def traverse(
    model: Model,
    code: Tensor,
    dimensions: Sequence[Dimension],
    values: Tensor,
    labels: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Images (D, V, C, H, W) in [0, 1] of one code (T, 1, Z), of which one number after the other takes all values.

    Args:
        dimensions: the D numbers.
        values (V,): what they are set to.
        labels (1, L), lengths (1,): of the code, for a `Draw`.
    Raises:
        FastdrawError: the code has no such number, or is a `Draw`'s and has no labels and lengths.
    """
    codes = code[:, None].repeat(1, len(dimensions), len(values), 1)  # (T, D, V, Z)
    for row, (step, number) in enumerate(dimensions):
        _check_dimension(code, step, number)
        codes[step, row, :, number] = values
    return _decode_copies(model, codes, labels, lengths)


def traverse_plane(
    model: Model,
    code: Tensor,
    across: Dimension,
    down: Dimension,
    values: Tensor,
    labels: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Images (V, V, C, H, W) in [0, 1] of one code (T, 1, Z), of which two numbers take all pairs of values.

    Args:
        across, down: the numbers that change along the second axis and along the first.
        values (V,), labels (1, L), lengths (1,): as in `traverse`.
    Raises:
        FastdrawError: as `traverse`.
    """
    codes = code[:, None].repeat(1, len(values), len(values), 1)  # (T, V, V, Z)
    for (step, number), along in ((across, values), (down, values[:, None])):
        _check_dimension(code, step, number)
        codes[step, :, :, number] = along
    return _decode_copies(model, codes, labels, lengths)


@torch.no_grad()
def kl_by_dimension(model: Vae, batches: Iterable[Batch]) -> Tensor:
    """KL(q(z | x) || N(0, I)) of each number of z alone (Z,), in nats, the mean over the images of batches."""
    kls = []
    for batch in batches:
        mu, log_sigma = model.posterior(batch.image.to(model.device))
        kls.append(kl_by_number(mu, log_sigma))
    return torch.cat(kls).mean(0).cpu()


def code_variance(codes: Tensor) -> Tensor:
    """How much each number of a code tells of an image (T, Z): its variance over the images of codes (T, B, Z).

    Raises:
        FastdrawError: fewer than two images.
    """
    if codes.shape[1] < 2:
        raise FastdrawError(f"a variance over images takes at least 2 of them, got {codes.shape[1]}: give more")
    return codes.var(1)


def active_units(codes: Tensor) -> int:
    """How many numbers of a code tell something of an image, out of T Z; their variances are above 0.01.

    Raises:
        FastdrawError: fewer than two images.
    """
    return int((code_variance(codes) > ACTIVE).sum())


def largest_dimensions(weights: Tensor, count: int) -> list[Dimension]:
    """The `count` numbers of a code, or all, with the largest of the weights (T, Z), the largest first."""
    order = weights.flatten().argsort(descending=True, stable=True)[:count]
    return [divmod(place, weights.shape[1]) for place in order.tolist()]


def places_of_codes(codes: Tensor) -> Tensor:
    """Places of codes (T, B, Z) to be shown at (B, 1 or 2): one or two numbers as they are, more by t-SNE.

    Raises:
        FastdrawError: codes that are not finite, or too few images for t-SNE.
    """
    flat = codes.transpose(0, 1).flatten(1)
    # t-SNE takes squares of them.
    if not flat.square().sum().isfinite():
        raise FastdrawError("codes are too large or not finite: train again, with a lower --optimiser.lr")
    if flat.shape[1] <= 2:
        return flat
    if len(flat) < FEWEST:
        raise FastdrawError(f"t-SNE takes at least {FEWEST} images, got {len(flat)}: give more")
    return tsne(flat)


def _decode_copies(model: Model, codes: Tensor, labels: Tensor | None, lengths: Tensor | None) -> Tensor:
    """Images (D, V, C, H, W) of codes (T, D, V, Z) that share labels (1, L) and lengths (1,)."""
    shape = codes.shape[1:3]
    of_codes = (None if part is None else part.expand(shape.numel(), *part.shape[1:]) for part in (labels, lengths))
    return decode(model, codes.flatten(1, 2), *of_codes).unflatten(0, shape)


def _check_dimension(code: Tensor, step: int, number: int) -> None:
    steps, _, latent = code.shape
    if not (0 <= step < steps and 0 <= number < latent):
        raise FastdrawError(
            f"no number {number} at step {step} of a code: it has {latent} at each of {steps} step(s), all from 0"
        )
