"""The convolutional networks of paper 003, section 3.1, for images of any size."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

SLOPE = 0.2  # of the leaky ReLUs


class ConvEncoder(nn.Sequential):
    """Images (B, C, H, W) to (B, outputs): every width is `convs` 3 x 3 convolutions, the last one of stride 2."""

    def __init__(self, shape: tuple[int, int, int], widths: Sequence[int], convs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for before, width in pairwise((shape[0], *widths)):
            for number in range(convs):
                last = number == convs - 1
                layers += [
                    nn.Conv2d(before if number == 0 else width, width, 3, stride=2 if last else 1, padding=1),
                    nn.LeakyReLU(SLOPE),
                ]
        height, width = sizes(shape, len(widths))[-1]
        super().__init__(*layers, nn.Flatten(), nn.Linear(widths[-1] * height * width, outputs))


class ConvDecoder(nn.Sequential):
    """z (B, Z) to images (B, C, H, W), unbounded: one 3 x 3 transposed convolution of stride 2 for every width."""

    def __init__(self, latent: int, widths: Sequence[int], shape: tuple[int, int, int]) -> None:
        heights_widths = sizes(shape, len(widths))
        height, width = heights_widths[-1]
        layers: list[nn.Module] = [
            nn.Linear(latent, widths[-1] * height * width),
            nn.Unflatten(1, (widths[-1], height, width)),
        ]
        channels = (shape[0], *widths)
        for level in range(len(widths), 0, -1):
            # From ceil(s / 2) back to s, which is one more where s is even.
            height, width = heights_widths[level - 1]
            even = 1 - height % 2, 1 - width % 2
            layers += [
                nn.LeakyReLU(SLOPE),
                nn.ConvTranspose2d(channels[level], channels[level - 1], 3, stride=2, padding=1, output_padding=even),
            ]
        super().__init__(*layers)


class Refiner(nn.Module):
    """Images (B, C, H, W) to finer ones: residual blocks, and around them a skip connection from image to image."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        return image + self.blocks(image)


class ResidualBlock(nn.Module):
    """x + batch norm of two 3 x 3 convolutions of x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def sizes(shape: tuple[int, int, int], levels: int) -> list[tuple[int, int]]:
    """Height and width of an image (C, H, W), and after each of `levels` halvings, rounded up."""
    found = [shape[1:]]
    for _ in range(levels):
        height, width = found[-1]
        found.append(((height + 1) // 2, (width + 1) // 2))
    return found
