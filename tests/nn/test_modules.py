"""Modules: the ops with weights that can be learned."""

import copy

import pytest
import torch
from torch import nn

import fastdraw.nn
from fastdraw import ops


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
def test_lstm_cell_takes_the_place_of_torchs(bias: bool) -> None:
    torchs = nn.LSTMCell(3, 4, bias=bias)
    ours = fastdraw.nn.LSTMCell(3, 4, bias=bias)
    assert ours.load_state_dict(torchs.state_dict()) == nn.modules.module._IncompatibleKeys([], [])
    state = torch.randn(2, 4), torch.randn(2, 4)
    for x, hx in [
        (torch.randn(2, 3), state),
        (torch.randn(2, 3), None),
        (torch.randn(3), (state[0][0], state[1][0])),
        (torch.randn(3), None),
    ]:
        torch.testing.assert_close(ours(x, hx), torchs(x, hx))


def test_lstm_cell_is_a_torch_cell() -> None:
    cell = fastdraw.nn.LSTMCell(3, 4)
    assert isinstance(cell, nn.LSTMCell)
    assert torch.equal(copy.deepcopy(cell)(torch.ones(1, 3))[0], cell(torch.ones(1, 3))[0])
    assert cell.double()(torch.ones(1, 3, dtype=torch.float64))[0].dtype == torch.float64


def test_a_read_learns_where_to_look() -> None:
    """Two bright pixels; the window must find them from where it starts."""
    image = torch.zeros(1, 1, 16, 16)
    image[..., 11:13, 4:6] = 1.0
    read = fastdraw.nn.GlimpseRead(1, 2, stride="per_axis")
    nn.init.zeros_(read.window.weight)
    with torch.no_grad():
        read.window.bias.copy_(torch.tensor([0.0, 0.0, 3.0, -2.5, 0.0]))
    before, after = _train(read, lambda: (read(image, torch.ones(1, 1)) - 1).square().mean())
    assert before > 0.5
    assert after < 0.05


def test_a_write_learns_an_image() -> None:
    target = torch.rand(1, 2, 6, 7)
    write = fastdraw.nn.GlimpseWrite(1, 6, channels=2)
    before, after = _train(write, lambda: (write(torch.zeros(1, 2, 6, 7), torch.ones(1, 1)) - target).square().mean())
    assert after < 0.2 * before


def test_attention_learns_to_pick_an_item() -> None:
    values = torch.randn(8, 5, 6)
    attention = fastdraw.nn.AdditiveAttention(6, 6, 16)
    wanted = torch.randint(5, (8,))
    query = values[torch.arange(8), wanted]

    def loss() -> torch.Tensor:
        _, weights = attention(query, attention.keys(values), values)
        return -weights[torch.arange(8), wanted].log().mean()

    before, after = _train(attention, loss)
    assert after < 0.2 * before


def test_attention_takes_lengths() -> None:
    attention = fastdraw.nn.AdditiveAttention(3, 2, 4)
    query, values, lengths = torch.randn(2, 3), torch.randn(2, 5, 2), torch.tensor([2, 5])
    context, weights = attention(query, attention.keys(values), values, lengths)
    expected = ops.additive_attention(attention.query(query), attention.keys(values), values, attention.v, lengths)
    torch.testing.assert_close((context, weights), expected)
    assert not weights[0, 2:].any()


def _train(module: nn.Module, loss) -> tuple[float, float]:
    """The loss before and after two hundred steps, in which every parameter moves."""
    optimiser = torch.optim.Adam(module.parameters(), lr=0.03)
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    before = loss().item()
    for _ in range(200):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    for name, p in module.named_parameters():
        assert not torch.equal(p, start[name]), name
    return before, loss().item()
