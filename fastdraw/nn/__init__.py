"""Modules for other people's models: the ops with their weights."""

from .attention import AdditiveAttention
from .glimpse import GlimpseRead, GlimpseWrite
from .lstm import LSTMCell

__all__ = ["AdditiveAttention", "GlimpseRead", "GlimpseWrite", "LSTMCell"]
