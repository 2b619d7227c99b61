"""The losses of a VAE on a set of images, against a loop over single images in plain PyTorch."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy

from fastdraw.evaluation.losses import SEED, image_losses
from fastdraw.models import Vae, VaeConfig

IMAGES, LATENT = 7, 3


@pytest.fixture(scope="module")
def model() -> Vae:
    torch.manual_seed(0)
    return Vae(VaeConfig(latent=LATENT, hidden=(8,), height=6, width=5)).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randint(256, (IMAGES, 1, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_losses_are_those_of_every_image_once(model: Vae, images: torch.Tensor) -> None:
    noise = torch.randn(1, IMAGES, LATENT, generator=torch.Generator().manual_seed(SEED))
    found = image_losses(model, images, chunk=3)
    assert found.nll.shape == (IMAGES,)
    assert found.kl.shape == found.mu.shape == (IMAGES, LATENT)
    with torch.no_grad():
        for number in range(IMAGES):
            image = images[number : number + 1].float() / 255
            mu, log_sigma = model.encoder(image).chunk(2, dim=1)
            posterior = Normal(mu, log_sigma.exp())
            (logits,) = model.decode(mu + log_sigma.exp() * noise[:, number])
            bce = binary_cross_entropy(logits.sigmoid(), image, reduction="sum")
            torch.testing.assert_close(found.nll[number], bce)
            torch.testing.assert_close(found.kl[number], kl_divergence(posterior, Normal(0, 1))[0])
            torch.testing.assert_close(found.mu[number], mu[0])


@pytest.mark.parametrize("chunk", [1, 6, 7, 1000])
def test_losses_do_not_depend_on_the_chunk(model: Vae, images: torch.Tensor, chunk: int) -> None:
    for part, other in zip(image_losses(model, images, chunk), image_losses(model, images, 2), strict=True):
        torch.testing.assert_close(part, other)


def test_numbers_of_z_add_up_to_the_kl_that_is_trained(model: Vae, images: torch.Tensor) -> None:
    found = image_losses(model, images)
    output = model(images.float() / 255, None, None, torch.zeros(1, IMAGES, LATENT))
    torch.testing.assert_close(found.kl.sum(1), output.kl[0].detach())
