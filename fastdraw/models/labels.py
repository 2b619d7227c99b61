"""What a model is told of an image's label: the vectors that its decoder takes, one module for each way of telling it.

All turn labels (B, L) int64, of which lengths (B,) int64 count, into vectors (B, L', D) and their lengths (B,), and
raise:

    TypeError: labels or lengths are no int64 tensors.
    ValueError: labels are not (B, L), L is 0 or too large, lengths are not (B,), or a value is out of range.

Labels beyond lengths are padding: they must be symbols, and change nothing.
"""

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot


class DigitVectors(nn.Module):
    """seqDRAW: the label and its position, both one-hot (B, L, symbols + positions); to be attended to.

    Args:
        symbols: labels are 0 to symbols - 1.
        positions: size of the one-hot position, and so the most labels of an image.
        count_from: the end of a sequence that positions count from, "left" or "right".
    """

    attended = True
    symbol: Tensor
    position: Tensor

    def __init__(self, symbols: int, positions: int, count_from: Literal["left", "right"] = "left"):
        super().__init__()
        self.width = symbols + positions
        self.count_from = count_from
        # Buffers follow the dtype and the device of the model; nothing of them needs to be saved.
        self.register_buffer("symbol", torch.eye(symbols), persistent=False)
        self.register_buffer("position", torch.eye(positions), persistent=False)

    def forward(self, labels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        check_labels(labels, lengths, len(self.symbol), len(self.position))
        place = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
        if self.count_from == "right":
            place = (lengths[:, None] - 1 - place).clamp(min=0)  # padding is masked, any position will do
        return torch.cat([self.symbol[labels], self.position[place]], dim=-1), lengths


class LastState(nn.Module):
    """rnnDRAW: an LSTM reads one-hot labels from left to right; its last hidden state (B, 1, hidden) is all of them.

    Args:
        symbols: labels are 0 to symbols - 1.
        hidden: units of the LSTM.
    """

    attended = False

    def __init__(self, symbols: int, hidden: int):
        super().__init__()
        self.width = hidden
        self.lstm = _lstm(symbols, hidden)

    def forward(self, labels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        check_labels(labels, lengths, self.lstm.input_size)
        states = _read(self.lstm, labels)
        last = (lengths - 1)[:, None, None].expand(-1, 1, self.width)
        return states.gather(1, last), torch.ones_like(lengths)


class WordStates(nn.Module):
    """alignDRAW: the states of two LSTMs at every word (B, L, 2 hidden), one from either end; to be attended to.

    Args:
        symbols: words are 0 to symbols - 1.
        hidden: units of the LSTM of each direction.
    """

    attended = True

    def __init__(self, symbols: int, hidden: int):
        super().__init__()
        self.width = 2 * hidden
        self.rightwards, self.leftwards = _lstm(symbols, hidden), _lstm(symbols, hidden)

    def forward(self, labels: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        check_labels(labels, lengths, self.rightwards.input_size)
        # Each sample is turned around within its own length, so that no state has seen padding; its own inverse.
        place = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
        turned = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
        rightwards, leftwards = _read(self.rightwards, labels), _read(self.leftwards, labels.gather(1, turned))
        return torch.cat([rightwards, leftwards.gather(1, turned[..., None].expand_as(leftwards))], dim=-1), lengths


LabelEncoder: TypeAlias = DigitVectors | LastState | WordStates


def check_labels(labels: Tensor, lengths: Tensor, symbols: int, most: int | None = None) -> None:
    """Check labels (B, L) in 0..symbols - 1 of at most `most` places, and lengths (B,) in 1..L.

    Values are not read while compiling, as reading them would break the graph.
    """
    for name, given in (("labels", labels), ("lengths", lengths)):
        if not isinstance(given, Tensor) or given.dtype != torch.int64:
            came = str(given.dtype).removeprefix("torch.") if isinstance(given, Tensor) else type(given).__name__
            raise TypeError(f"{name} must be an int64 tensor, got {came}")
    if labels.dim() != 2 or labels.shape[1] < 1 or (most is not None and labels.shape[1] > most):
        size = "L >= 1" if most is None else f"1 <= L <= {most} positions"
        raise ValueError(f"labels must have shape (B, L) with {size}, got {tuple(labels.shape)}")
    if lengths.shape != labels.shape[:1]:
        raise ValueError(
            f"lengths must have shape (B,) with B = {len(labels)} (from labels), got {tuple(lengths.shape)}"
        )
    if labels.numel() == 0 or labels.is_meta or torch.compiler.is_compiling():
        return
    for name, given, low, high in (("labels", labels, 0, symbols - 1), ("lengths", lengths, 1, labels.shape[1])):
        least, greatest = (int(value) for value in given.aminmax())
        if least < low or greatest > high:
            raise ValueError(f"{name} must lie in {low}..{high}, got {least}..{greatest}")


def _lstm(symbols: int, hidden: int) -> nn.LSTM:
    lstm = nn.LSTM(symbols, hidden, batch_first=True)
    for weight in lstm.parameters():
        if weight.dim() == 2:
            nn.init.normal_(weight, std=1 / math.sqrt(weight.shape[1]))
        else:
            nn.init.zeros_(weight)
    return lstm


def _read(lstm: nn.LSTM, labels: Tensor) -> Tensor:
    """The hidden states (B, L, hidden) of an LSTM that reads labels (B, L) from left to right."""
    symbols = one_hot(labels, lstm.input_size).to(next(lstm.parameters()).dtype)
    # cuDNN's LSTM may give other bits every time; oneDNN's has no bfloat16 on many processors.
    with torch.backends.cudnn.flags(enabled=False), torch.autocast(labels.device.type, enabled=False):
        return lstm(symbols)[0]
