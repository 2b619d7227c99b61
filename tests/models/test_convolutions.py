"""The convolutional networks: sizes of any image, and the layers that paper 003 counts."""

import pytest
import torch
from torch import nn

from fastdraw.models import Vae
from fastdraw.models.convolutions import ConvDecoder, ConvEncoder, Refiner, ResidualBlock, sizes
from fastdraw.training import resolve


def strides(module: nn.Module, kind: type[nn.Module]) -> list[int]:
    """Of the module's layers of one kind, in their order."""
    return [layer.stride[0] for layer in module.modules() if type(layer) is kind]


def channels(module: nn.Module, kind: type[nn.Module]) -> list[int]:
    return [layer.out_channels for layer in module.modules() if type(layer) is kind]


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 128, 128), (3, 5, 17), (2, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("convs", [1, 2])
def test_images_of_any_size_are_encoded_and_decoded(shape: tuple[int, int, int], levels: int, convs: int) -> None:
    widths = (2, 3, 4)[:levels]
    code = ConvEncoder(shape, widths, convs, 6)(torch.rand(2, *shape))
    assert code.shape == (2, 6)
    image = ConvDecoder(6, widths, shape)(code)
    assert image.shape == (2, *shape)
    assert Refiner(shape[0], 2, 1)(image).shape == (2, *shape)


def test_sizes_are_halved_and_rounded_up() -> None:
    assert sizes((3, 28, 5), 3) == [(28, 5), (14, 3), (7, 2), (4, 1)]
    assert sizes((1, 1, 128), 2) == [(1, 128), (1, 64), (1, 32)]


def test_sizes_of_networks_are_those_that_layers_make() -> None:
    seen = []
    encoder = ConvEncoder((3, 21, 30), (2, 3, 4), 2, 6)
    for layer in encoder:
        layer.register_forward_hook(lambda layer, _, output: seen.append(output.shape) if is_halving(layer) else None)
    encoder(torch.rand(1, 3, 21, 30))
    assert [tuple(shape[2:]) for shape in seen] == sizes((3, 21, 30), 3)[1:]


def is_halving(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)


def test_networks_of_mnist_are_the_papers() -> None:
    """Three convolutions of stride 2, z of 128, three deconvolutions; five residual blocks with batch norm."""
    plain, residual, staged = (Vae(resolve(f"{name}-vae-mnist").model) for name in ("conv", "residual", "multistage"))
    for model in (plain, residual, staged):
        assert strides(model.encoder, nn.Conv2d) == [2, 2, 2]
        assert channels(model.encoder, nn.Conv2d) == [64, 128, 256]
        assert strides(model.decoder, nn.ConvTranspose2d) == [2, 2, 2]
        assert channels(model.decoder, nn.ConvTranspose2d) == [128, 64, 1]
        assert model.config.latent == 128
    assert len(plain.refiners) == 0
    for model in (residual, staged):
        (refiner,) = model.refiners
        assert [type(layer) for layer in refiner.blocks].count(ResidualBlock) == 5
        for block in refiner.blocks[2:7]:
            kinds = [type(layer) for layer in block.layers]
            assert kinds == [nn.Conv2d, nn.LeakyReLU, nn.Conv2d, nn.BatchNorm2d]
    # The paper gains its sharper images "without introducing extra parameters".
    assert [p.shape for p in residual.parameters()] == [p.shape for p in staged.parameters()]


def test_networks_of_faces_are_the_papers() -> None:
    """Four times a convolution of stride 1 and one of stride 2, z of 512, four deconvolutions, on 128 x 128 pixels."""
    model = Vae(resolve("multistage-vae-celeba").model)
    assert strides(model.encoder, nn.Conv2d) == [1, 2] * 4
    assert channels(model.encoder, nn.Conv2d) == [64, 64, 128, 128, 256, 256, 256, 256]
    assert strides(model.decoder, nn.ConvTranspose2d) == [2] * 4
    assert model.config.latent == 512
    assert (model.config.channels, model.config.height, model.config.width) == (3, 128, 128)


def test_refiner_adds_to_its_image_and_a_block_to_its_input() -> None:
    torch.manual_seed(0)
    image, refiner = torch.rand(2, 3, 6, 5), Refiner(3, 4, 2)
    nn.init.zeros_(refiner.blocks[-1].weight)
    nn.init.zeros_(refiner.blocks[-1].bias)
    assert torch.equal(refiner(image), image)
    block, x = ResidualBlock(4), torch.rand(2, 4, 6, 5)
    conv, activation, last, norm = block.layers
    torch.testing.assert_close(block(x), x + norm(last(activation(conv(x)))))
