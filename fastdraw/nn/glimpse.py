"""Differentiable windows that a hidden state steers."""

from torch import Tensor, nn

from .. import ops


class GlimpseRead(nn.Module):
    """Reads an n x n patch from an image where a hidden state looks.

    Args:
        hidden: size of the state.
        n: side of the patch.
        stride: "max" or "per_axis", as in `fastdraw.ops.glimpse_read`.
    Example:
        >>> read = GlimpseRead(256, 8)
        >>> read(torch.rand(2, 3, 32, 64), torch.zeros(2, 256)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, hidden: int, n: int, *, stride: str = "max"):
        super().__init__()
        self.n, self.stride = n, stride
        self.window = nn.Linear(hidden, 5)

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        """image (B, C, H, W), h (B, hidden) -> patch (B, C, n, n)."""
        return ops.glimpse_read(image, self.window(h), self.n, stride=self.stride)


class GlimpseWrite(nn.Module):
    """Writes an n x n patch onto a canvas; a hidden state says what and where.

    Args:
        hidden: size of the state.
        n: side of the patch.
        channels: of the canvas.
        stride: "max" or "per_axis", as in `fastdraw.ops.glimpse_write`.
    Example:
        >>> write = GlimpseWrite(256, 8, channels=3)
        >>> write(torch.zeros(2, 3, 32, 64), torch.zeros(2, 256)).shape
        torch.Size([2, 3, 32, 64])
    """

    def __init__(self, hidden: int, n: int, *, channels: int = 1, stride: str = "max"):
        super().__init__()
        self.n, self.channels, self.stride = n, channels, stride
        self.window = nn.Linear(hidden, 5)
        self.patch = nn.Linear(hidden, channels * n * n)

    def forward(self, canvas: Tensor, h: Tensor) -> Tensor:
        """canvas (B, C, H, W), h (B, hidden) -> a new canvas (B, C, H, W)."""
        patch = self.patch(h).unflatten(1, (self.channels, self.n, self.n))
        size = (canvas.shape[-2], canvas.shape[-1])
        return ops.glimpse_write(patch, self.window(h), size, canvas=canvas, stride=self.stride)
