"""The papers' systems, built on fastdraw.ops."""

from .draw import Draw, DrawConfig
from .vae import Vae, VaeConfig

Model = Draw | Vae


def build_model(config: DrawConfig | VaeConfig) -> Model:
    """The model of a config, with fresh weights."""
    return Vae(config) if isinstance(config, VaeConfig) else Draw(config)


__all__ = ["Draw", "DrawConfig", "Model", "Vae", "VaeConfig", "build_model"]
