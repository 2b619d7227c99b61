"""What a refined image is compared with the real one by (paper 003, sections 2.3 and 2.4)."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from fastdraw.errors import FastdrawError
from fastdraw.models import VaeConfig

if TYPE_CHECKING:
    from fastdraw.training.settings import RefinementSettings


class Distance(nn.Module):
    """Sums over pixels and channels of |x - y| or (x - y)^2, (B,)."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return (image - target).abs().pow(self.power).flatten(1).sum(1)


def refinement_loss(settings: "RefinementSettings", config: VaeConfig) -> nn.Module:
    """A module that maps images (B, C, H, W) and the real ones to losses (B,).

    Raises:
        FastdrawError: the weights of its network are missing or do not fit.
    """
    if settings.loss in ("l1", "l2"):
        return Distance(1 if settings.loss == "l1" else 2)
    raise FastdrawError(f"refinement.loss {settings.loss} is not there yet")
