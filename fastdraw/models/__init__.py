"""The papers' systems, built on fastdraw.ops."""

from .draw import Draw, DrawConfig

__all__ = ["Draw", "DrawConfig"]
