"""Sharpness: measured on images whose sharpness is known, and what each stage of a VAE makes of an image."""

import math

import pytest
import torch

from fastdraw.errors import FastdrawError
from fastdraw.evaluation.sharpness import (
    CHUNK,
    compare_images,
    gradient_energy,
    high_frequency_power,
    measure_images,
    ms_ssim,
    redraw_stages,
)
from fastdraw.models import Vae, VaeConfig

SIZES = pytest.mark.parametrize("size", [(28, 28), (31, 44), (64, 64)], ids=lambda size: f"{size[0]}x{size[1]}")


def wave(height, width, rows, columns, amplitude=0.25):
    """(1, 1, H, W): 1/2 plus a wave of `rows` and `columns` half-periods, from edge to edge."""
    down = torch.cos(math.pi * rows * (torch.arange(height) + 0.5) / height)
    across = torch.cos(math.pi * columns * (torch.arange(width) + 0.5) / width)
    return 0.5 + amplitude * (down[:, None] * across)[None, None].double()


def blurred(images):
    """The mean of each pixel and its eight neighbours."""
    return torch.nn.functional.avg_pool2d(torch.nn.functional.pad(images, (1, 1, 1, 1), "replicate"), 3, 1)


@SIZES
def test_constants_have_no_sharpness(size):
    for value in (0.0, 0.3, 1.0):
        flat = torch.full((2, 3, *size), value)
        for found in measure_images(flat).values():
            torch.testing.assert_close(found, torch.zeros(2, dtype=torch.float64), atol=1e-25, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_blur_takes_sharpness_and_noise_gives_it(channels):
    images = torch.rand(5, channels, 28, 28)
    images[1:] = blurred(blurred(images[1:]))
    sharp, soft = measure_images(images), measure_images(blurred(images))
    noisy = measure_images((images + 0.1 * torch.randn_like(images)).clamp(0, 1))
    for measure in sharp:
        assert (soft[measure] < sharp[measure]).all(), measure
        assert (noisy[measure] > sharp[measure]).all(), measure


def test_gradient_energy_by_hand():
    # Horizontally 0.5 and 0 in the first row, -0.5 and 1 in the second; vertically 0.5, -0.5 and 0.5.
    image = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.0, 1.0]])
    expected = torch.tensor([(0.25 + 0.25 + 1) / 4 + 0.25], dtype=torch.float64)

    torch.testing.assert_close(gradient_energy(image[None, None]), expected)
    torch.testing.assert_close(gradient_energy(image[None, None].expand(1, 3, 2, 3)), expected)


@SIZES
def test_power_of_a_wave_falls_into_its_band(size):
    """k half-periods over N pixels are k/(2 N) cycles per pixel; a wave along both ways has the root of the squares."""
    height, width = size
    for rows, columns in ((0, width // 4), (height // 3, 0), (height // 2, width // 5), (height - 2, width - 3)):
        image = wave(height, width, rows, columns)
        frequency = math.hypot(rows / (2 * height), columns / (2 * width))
        power = (image - 0.5).square().mean().reshape(1)
        torch.testing.assert_close(high_frequency_power(image, frequency - 1e-6), power)
        torch.testing.assert_close(high_frequency_power(image, frequency + 1e-6), torch.zeros_like(power))
        torch.testing.assert_close(high_frequency_power(image), power * (frequency > 0.25))


def test_power_of_all_frequencies_is_the_mean_square():
    images = torch.rand(4, 3, 17, 30, dtype=torch.float64)
    torch.testing.assert_close(high_frequency_power(images, above=-1), images.square().mean((1, 2, 3)))
    without_mean = images.var((2, 3), correction=0).mean(1)
    torch.testing.assert_close(high_frequency_power(images, above=0), without_mean)


def test_a_ramp_has_no_jump_from_edge_to_edge():
    """A Fourier transform would give it one: nearly all of a ramp's power is of the lowest frequencies."""
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    fourier = torch.fft.fft2(ramp.double(), norm="forward").abs().square()[0, 0]
    frequencies = torch.fft.fftfreq(64)
    high = torch.hypot(*torch.meshgrid(frequencies, frequencies, indexing="ij")) > 0.25
    assert high_frequency_power(ramp) < 1e-6 < 1e-4 < fourier[high].sum()


@SIZES
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_image_is_alike_and_a_blurred_one_less(size, channels):
    images = blurred(torch.rand(1, channels, *size))
    alike, soft, softer = (ms_ssim(other, images) for other in (images, blurred(images), blurred(blurred(images))))
    torch.testing.assert_close(alike, torch.ones(1, dtype=torch.float64))
    assert (softer < soft).all()
    assert (soft < 1).all()
    assert (ms_ssim(1 - images, images) < soft).all()


def test_likeness_is_of_each_image_for_itself():
    images, originals = torch.rand(3, 1, 28, 28), torch.rand(3, 1, 28, 28)
    together = ms_ssim(images, originals)
    for place in range(3):
        one = slice(place, place + 1)
        torch.testing.assert_close(ms_ssim(images[one], originals[one]), together[one])
    torch.testing.assert_close(ms_ssim(images[:1], originals[:1]), compare_images(images, originals)["ms_ssim"][:1])


def test_likeness_without_haze_forgives_what_is_not_seen_alone():
    originals = torch.zeros(1, 1, 28, 28)
    originals[..., 8:20, 12:16] = 1
    haze = 0.04 * torch.rand(1, 1, 28, 28)
    hazy, seen = (originals + haze).clamp(0, 1), (originals + 4 * haze).clamp(0, 1)
    found = [compare_images(images, originals) for images in (hazy, seen)]
    assert found[0]["ms_ssim"] < 0.95
    torch.testing.assert_close(found[0]["ms_ssim_cut"], torch.ones(1, dtype=torch.float64))
    assert found[1]["ms_ssim_cut"] < 0.95
    torch.testing.assert_close(compare_images(originals, hazy)["ms_ssim_cut"], found[0]["ms_ssim_cut"])


def test_distances_are_means_over_pixels_and_channels():
    originals = torch.rand(2, 3, 28, 28) / 2
    images = originals.clone()
    images[0] += 0.25
    images[1, 0, :14] += 0.5
    found = compare_images(images, originals)
    torch.testing.assert_close(found["l1"], torch.tensor([0.25, 0.5 / 6], dtype=torch.float64))
    torch.testing.assert_close(found["l2"], torch.tensor([0.0625, 0.25 / 6], dtype=torch.float64))


def test_many_images_are_measured_as_few():
    images, originals = torch.rand(CHUNK + 3, 1, 12, 12), torch.rand(CHUNK + 3, 1, 12, 12)
    for many, few in (
        (measure_images(images), measure_images(images[-4:])),
        (compare_images(images, originals), compare_images(images[-4:], originals[-4:])),
    ):
        for name, values in many.items():
            assert values.shape == (CHUNK + 3,)
            torch.testing.assert_close(values[-4:], few[name])


@pytest.mark.parametrize(
    ("measure", "shape", "message"),
    [
        (measure_images, (3, 28, 28), r"images must be \(B, C, H, W\) of at least 2 x 2 pixels, got \(3, 28, 28\)"),
        (measure_images, (2, 1, 28, 1), r"of at least 2 x 2 pixels, got \(2, 1, 28, 1\)"),
        (high_frequency_power, (28, 28), r"of at least 2 x 2 pixels, got \(28, 28\)"),
        (lambda x: compare_images(x, x), (2, 1, 10, 28), r"of at least 11 x 11 pixels, got \(2, 1, 10, 28\)"),
    ],
)
def test_what_is_no_image_to_measure_is_refused(measure, shape, message):
    with pytest.raises(FastdrawError, match=message):
        measure(torch.rand(shape))


@pytest.mark.parametrize("refiners", [0, 1, 2])
def test_stages_are_those_of_the_decoder_at_the_posterior_mean(refiners):
    config = VaeConfig(
        network="conv",
        widths=(2, 2),
        latent=3,
        refiners=refiners,
        blocks=1,
        refiner_width=2,
        likelihood="gaussian",
        height=6,
        width=6,
    )
    model = Vae(config).eval()
    images = torch.rand(CHUNK + 2, 1, 6, 6)
    stages = redraw_stages(model, images)
    assert stages.shape == (1 + refiners, *images.shape)
    assert not stages.requires_grad
    mu, _ = model.posterior(images)
    for stage, output in zip(stages, model.decode(mu), strict=True):
        torch.testing.assert_close(stage, output)
