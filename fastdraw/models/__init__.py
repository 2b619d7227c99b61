"""The papers' systems, built on fastdraw.ops."""

from .draw import SeqDraw, SeqDrawConfig

__all__ = ["SeqDraw", "SeqDrawConfig"]
