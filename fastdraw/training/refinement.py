"""What a refined image is compared with the real one by (paper 003, sections 2.3 and 2.4).

A refinement loss is a module that maps images (B, C, H, W) and the real ones to losses (B,). Those here grow with the
number of pixels as the NLL does, so that one `refinement.weight` serves images of any size. What they learn, if they
learn, is trained by the run's optimiser in the same backward pass, and stands in its checkpoints as refinement.*;
what is fixed in them must be no parameter, as every parameter of a run needs a gradient.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.func import functional_call

from fastdraw.errors import FastdrawError
from fastdraw.models import VaeConfig
from fastdraw.models.convolutions import ConvEncoder

if TYPE_CHECKING:
    from fastdraw.training.settings import RefinementSettings

# VGG16 up to relu3_3: the number in torchvision's `features` of each 3 x 3 convolution, and its channels; 0: a pool.
VGG16 = ((0, 64), (2, 64), (4, 0), (5, 128), (7, 128), (9, 0), (10, 256), (12, 256), (14, 256))
SMALLEST = 4  # pixels, which two pools make one of
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, as VGG16 takes them
FETCH = (
    'python -c "from torchvision.models import VGG16_Weights; VGG16_Weights.IMAGENET1K_V1.get_state_dict('
    'check_hash=True)"'
)

CRITIC_WIDTHS = (32, 64, 128)
ADVERSARIAL = 0.01  # of the critic's verdict beside l1: 1 / 100, as in pix2pix (Isola et al. 2017)


class Distance(nn.Module):
    """Sums over pixels and channels of |x - y| or (x - y)^2, (B,)."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return (image - target).abs().pow(self.power).flatten(1).sum(1)


class Perceptual(nn.Module):
    """Mean squared distance of the images' VGG16 features at relu3_3, times pixels and channels of an image, (B,).

    Grey images are given three times. Images are not clamped to [0, 1]: one that is outside would not learn to come
    back.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        # Buffers that are not saved: they follow the module to its device, and nothing trains or keeps them.
        for number in _convolutions():
            self.register_buffer(f"weight_{number}", tensors[f"features.{number}.weight"].float(), persistent=False)
            self.register_buffer(f"bias_{number}", tensors[f"features.{number}.bias"].float(), persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        distance = (self.features(image) - self.features(target)).square().flatten(1).mean(1)
        return distance * image[0].numel()

    def features(self, image: Tensor) -> Tensor:
        """What VGG16 makes of images (B, 1 or 3, H, W) at relu3_3: (B, 256, H // 4, W // 4)."""
        x = (image - self.mean) / self.std  # three channels of one that is grey
        for number, channels in VGG16:
            if channels:
                weight, bias = self.get_buffer(f"weight_{number}"), self.get_buffer(f"bias_{number}")
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            else:
                x = F.max_pool2d(x, 2)
        return x


class Adversarial(nn.Module):
    """l1, and a critic D that learns to tell images y from real ones x, as in a GAN, (B,).

        |x - y| + w [-log s(D(y)) - log s(D(x)) - log(1 - s(D(y)))],   s = sigmoid, w = ADVERSARIAL x pixels x channels

    The first of the critic's terms trains y alone, and the others the critic alone, as if each of the two were constant
    to the other: so one backward pass serves both. Only l1 keeps an image near its original, as the critic asks for
    some real image; so it keeps training stable, too. The value is the same in training and in evaluation.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.l1 = Distance(1)
        self.critic = ConvEncoder(shape, CRITIC_WIDTHS, 1, 1)

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        constant = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        fooled = F.softplus(-functional_call(self.critic, constant, (image,)))
        told = F.softplus(-self.critic(target)) + F.softplus(self.critic(image.detach()))
        return self.l1(image, target) + ADVERSARIAL * image[0].numel() * (fooled + told).squeeze(1)


def refinement_loss(settings: "RefinementSettings", config: VaeConfig) -> nn.Module:
    """The loss of the settings' name for images of a model's sizes.

    Raises:
        FastdrawError: the weights of its network are missing or do not fit, or it cannot take such images.
    """
    shape = (config.channels, config.height, config.width)
    if settings.loss in ("l1", "l2"):
        return Distance(1 if settings.loss == "l1" else 2)
    if settings.loss == "adversarial":
        return Adversarial(shape)
    if config.channels not in (1, 3) or min(config.height, config.width) < SMALLEST:
        raise FastdrawError(
            f"refinement.loss perceptual takes images of 1 or 3 channels and at least {SMALLEST} x {SMALLEST} pixels, "
            f"got {' x '.join(map(str, shape))}: give another --refinement.loss"
        )
    return Perceptual(_given(settings.features) if settings.features is not None else _cached())


def _convolutions() -> dict[int, tuple[int, int]]:
    """Inputs and outputs of VGG16's convolutions, by their number in `features`."""
    found: dict[int, tuple[int, int]] = {}
    inputs = 3
    for number, channels in VGG16:
        if channels:
            found[number] = (inputs, channels)
            inputs = channels
    return found


def _given(path: Path) -> dict[str, Tensor]:
    """Read the weights that `Perceptual` needs from a safetensors file, which may hold others."""
    expected: dict[str, tuple[int, ...]] = {}
    for number, (inputs, outputs) in _convolutions().items():
        expected |= {f"features.{number}.weight": (outputs, inputs, 3, 3), f"features.{number}.bias": (outputs,)}
    try:
        with safe_open(path, "pt") as file:
            held = set(file.keys())
            tensors = {name: file.get_tensor(name) for name in expected if name in held}
    except (OSError, SafetensorError) as error:
        raise FastdrawError(
            f"refinement.features {path} cannot be read ({error}): expected VGG16's weights in a safetensors file"
        ) from None
    for name, shape in expected.items():
        if name not in tensors:
            raise FastdrawError(f"refinement.features {path} has no {name}: expected torchvision's state dict of VGG16")
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            came = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
            raise FastdrawError(
                f"refinement.features {path}: {name} is {came}, expected {shape} float: is it of another network?"
            )
    return tensors


def _cached() -> dict[str, Tensor]:
    """Read VGG16's weights from where torchvision keeps what it has downloaded, if it has.

    Not those that it calls IMAGENET1K_FEATURES: trained on other colours, they give features of another size.
    """
    from torchvision.models import VGG16_Weights  # which takes a second to import

    path = Path(torch.hub.get_dir()) / "checkpoints" / VGG16_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    if not path.is_file():
        raise FastdrawError(
            f"refinement.loss perceptual needs VGG16's weights, and {path} is missing: give them as "
            f"--refinement.features FILE, or fetch them (528 MB) by {FETCH}"
        )
    expected = path.stem.rpartition("-")[2]
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FastdrawError(f"{path} cannot be read: {error.strerror}") from None
    if not digest.startswith(expected):
        raise FastdrawError(
            f"{path} is damaged: its SHA-256 starts with {digest[: len(expected)]}, not {expected}; delete it, and "
            f"fetch it again by {FETCH}"
        )
    loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return loaded
