"""The multi-digit classifier of Goodfellow et al. (arXiv 1312.6082): how many digits an image holds, and which."""

from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, max_pool2d, pad, unfold

from .draw import LARGEST

DIGITS = 10
MAPS = (48, 64, 128, 160, 192, 192, 192, 192)  # of the convolutional layers, which pool with strides 2, 1, 2, 1, ...
LOCAL = 192
DENSE = 3072
KERNEL = 5
PIECES = 3  # filters per maxout unit


class ClassifierConfig(BaseModel):
    """Sizes of a classifier; the defaults are what a CPU trains in minutes, `multiplier=1` are the paper's sizes."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["goodfellow", "goodfellow-bn"] = Field(
        "goodfellow-bn", description="the paper's network, or batch-normalised rectifiers in its shape"
    )
    multiplier: float = Field(0.25, gt=0, le=16, description="of the maps and units of every hidden layer")
    longest: int = Field(4, ge=1, le=100, description="digits in the longest sequence")
    height: int = Field(32, ge=1, le=LARGEST, description="of the image in pixels")
    width: int = Field(64, ge=1, le=LARGEST, description="of the image in pixels")
    channels: int = Field(1, ge=1, le=LARGEST, description="of the image")
    # The paper drops, and does not say how much. In a training of minutes 0.2 costs more than it gives.
    dropout: float = Field(0.0, ge=0, lt=1, description="share of every hidden layer that is dropped in training")


class Logits(NamedTuple):
    """length (B, M), of 1..M digits; digits (B, M, 10), of the places counted from the right."""

    length: Tensor
    digits: Tensor


class DigitClassifier(nn.Module):
    """images (B, C, H, W) -> `Logits`, each image less its mean.

    goodfellow: eight 5x5 convolutions, each max-pooled by 2x2 windows of stride 2 and 1 in turn and subtractively
    normalised, the first of maxout units (three filters each), the others of rectifiers; one 5x5 locally connected and
    two dense layers of rectifiers; dropout after every hidden layer. goodfellow-bn: rectifiers all over, batch
    normalisation in place of the subtractive one, no locally connected layer.

    The paper's lengths 0 and "more than 5" are left out: there is no such image to train on. The paper counts digits
    from the left; here they are counted from the right, where all images align, so that a head looks at one place.
    """

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        faithful = config.kind == "goodfellow"
        layers: list[nn.Module] = []
        channels, height, width = config.channels, config.height, config.width
        for index, maps in enumerate(self._scaled(size) for size in MAPS):
            stride = 2 - index % 2
            pieces = PIECES if faithful and index == 0 else 1
            layers.append(nn.Conv2d(channels, pieces * maps, KERNEL, padding=KERNEL // 2, bias=faithful))
            layers += [nn.Unflatten(1, (maps, pieces)), _Maximum()] if pieces > 1 else [nn.ReLU()] if faithful else []
            layers.append(_Pool(stride))
            layers += [_SubtractMean()] if faithful else [nn.BatchNorm2d(maps), nn.ReLU()]
            layers.append(nn.Dropout(config.dropout))
            channels, height, width = maps, -(-height // stride), -(-width // stride)
        if faithful:
            local = self._scaled(LOCAL)
            layers += [_LocallyConnected(channels, local, height, width), nn.ReLU(), nn.Dropout(config.dropout)]
            channels = local
        layers.append(nn.Flatten())
        units = channels * height * width
        for _ in range(2):
            dense = self._scaled(DENSE)
            layers.append(nn.Linear(units, dense, bias=faithful))
            layers += [nn.ReLU()] if faithful else [nn.BatchNorm1d(dense), nn.ReLU()]
            layers.append(nn.Dropout(config.dropout))
            units = dense
        for layer in layers:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.hidden = nn.Sequential(*layers)
        self.length = nn.Linear(units, config.longest)
        self.digits = nn.Linear(units, config.longest * DIGITS)

    def forward(self, images: Tensor) -> Logits:
        hidden = self.hidden(images - images.mean((1, 2, 3), keepdim=True))
        return Logits(self.length(hidden), self.digits(hidden).unflatten(1, (self.config.longest, DIGITS)))

    def _scaled(self, size: int) -> int:
        return max(1, round(self.config.multiplier * size))


def sequence_loss(logits: Logits, labels: Tensor, lengths: Tensor) -> Tensor:
    """Cross-entropy of the length and of the digits that are there, in nats per image; absent digits add nothing.

    Args:
        logits: of B images.
        labels (B, L): int64, left to right, L <= M; padded beyond lengths.
        lengths (B,): int64 in 1..L.
    """
    place = lengths[:, None] - 1 - torch.arange(logits.digits.shape[1], device=lengths.device)  # (B, M)
    target = labels.gather(1, place.clamp(min=0)).masked_fill(place < 0, -1)
    digits = cross_entropy(logits.digits.flatten(0, 1), target.flatten(), ignore_index=-1, reduction="sum")
    return cross_entropy(logits.length, lengths - 1) + digits / len(labels)


def decode(logits: Logits, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The most probable sequences: the length l maximises log P(l) + Σ_{i<=l} max_s log P(s_i).

    Args:
        logits: of B images.
        lengths (B,): int64 in 1..M, where they are given and need not be read.
    Returns:
        labels (B, M) int64, left to right, 0 beyond the length; lengths (B,) int64.
    """
    best, digits = logits.digits.log_softmax(2).max(2)  # (B, M)
    if lengths is None:
        lengths = 1 + (logits.length.log_softmax(1) + best.cumsum(1)).argmax(1)
    place = lengths[:, None] - 1 - torch.arange(digits.shape[1], device=digits.device)
    return digits.gather(1, place.clamp(min=0)).masked_fill(place < 0, 0), lengths


class _Maximum(nn.Module):
    """Maxout: (B, U, P, H, W) -> (B, U, H, W), the largest of P filters."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(2)


class _Pool(nn.Module):
    """The maximum of 2 x 2 windows that start at every pixel, or every second one: sizes H / stride, rounded up."""

    def __init__(self, stride: int):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return max_pool2d(x, 2, 2, ceil_mode=True)
        return max_pool2d(pad(x, (0, 1, 0, 1), value=-torch.inf), 2, 1)


class _SubtractMean(nn.Module):
    """Subtractive normalisation: each pixel less the mean of all maps over the 3 x 3 window around it."""

    def forward(self, x: Tensor) -> Tensor:
        return x - avg_pool2d(x.mean(1, keepdim=True), 3, 1, 1, count_include_pad=False)


class _LocallyConnected(nn.Module):
    """A 5 x 5 convolution, padded to its own size, that has its own filters at every pixel."""

    def __init__(self, channels: int, maps: int, height: int, width: int):
        super().__init__()
        self.size = height, width
        fan_in = channels * KERNEL**2
        self.weight = nn.Parameter(torch.randn(height * width, fan_in, maps) * (2 / fan_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(height * width, 1, maps))

    def forward(self, x: Tensor) -> Tensor:
        windows = unfold(x, KERNEL, padding=KERNEL // 2)  # (B, C·25, H·W)
        return torch.baddbmm(self.bias, windows.permute(2, 0, 1), self.weight).permute(1, 2, 0).unflatten(2, self.size)
