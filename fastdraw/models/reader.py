"""A small convolutional network that reads one digit cell, the judge of generated digits."""

from torch import Tensor, nn


class DigitReader(nn.Module):
    """(B, 1, 32, 16) in [0, 1] -> logits (B, 10), by three convolutions that halve the image, then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 2, 10),
        )

    def forward(self, cells: Tensor) -> Tensor:
        return self.layers(cells)
