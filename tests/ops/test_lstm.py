"""An LSTM step is torch.nn.LSTMCell's."""

import pytest
import torch

from .cases import Run, every_run


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@every_run("lstm_step")
def test_step_equals_torch(run: Run, bias: bool) -> None:
    cell = torch.nn.LSTMCell(5, 7, bias=bias, dtype=torch.float64, device=run.device)
    x, h, c = (torch.randn(3, size, dtype=torch.float64, device=run.device, requires_grad=True) for size in (5, 7, 7))
    expected = cell(x, (h, c))
    biases = (cell.bias_ih, cell.bias_hh) if bias else ()
    names = ["w_ih", "w_hh", "b_ih", "b_hh"]
    weights = dict(zip(names, (cell.weight_ih, cell.weight_hh, *biases), strict=False))
    actual = run(input=x, state=(h, c), **weights)
    leaves = [x, h, c, *weights.values()]
    torch.testing.assert_close(actual, expected)
    for loss in (lambda h, c: h.sin().sum(), lambda h, c: c.sin().sum()):
        torch.testing.assert_close(
            torch.autograd.grad(loss(*actual), leaves, retain_graph=True, allow_unused=True),
            torch.autograd.grad(loss(*expected), leaves, retain_graph=True, allow_unused=True),
        )


@every_run("lstm_gates")
def test_saturated_gates(run: Run) -> None:
    """Gates of +-1e4 are open or shut: nothing overflows, and the cell is kept or replaced."""
    on, off = 1e4, -1e4
    gates = torch.tensor(
        [[off, on, on, on], [on, off, on, on], [on, on, off, off]], device=run.device, requires_grad=True
    )
    c = torch.tensor([[0.5], [0.5], [0.5]], device=run.device, requires_grad=True)
    h, c_next = run(gates=gates, c=c)
    torch.testing.assert_close(c_next.flatten(), torch.tensor([0.5, 1.0, -0.5], device=run.device))
    torch.testing.assert_close(h.flatten(), torch.tensor([0.5, 1.0, 0.0], device=run.device).tanh())
    for gradient in torch.autograd.grad(h.sum() + c_next.sum(), [gates, c]):
        assert gradient.isfinite().all()
