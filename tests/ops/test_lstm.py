"""An LSTM step is torch.nn.LSTMCell's."""

import pytest
import torch

from .cases import SMALL, Run, every_run, parameter, runs
from .checking import float_tensors, of_tensors
from .test_derivatives import Recorder

# Where a step is one kernel, and no composition of torch's products and lstm_gates.
FUSED_STEPS = [parameter(run) for run in runs("lstm_step") if run.backend == "triton"]


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


@pytest.mark.parametrize("names", [("input",), ("h",), ("c",), ("w_ih", "b_hh"), ("w_hh",), ("b_ih",)], ids="-".join)
@every_run("lstm_step")
def test_gradients_of_some_arguments_alone(run: Run, names: tuple[str, ...]) -> None:
    arguments = SMALL["lstm_step"].inputs(torch.float64, run.device)
    flat = {"h": arguments["state"][0], "c": arguments.pop("state")[1], **arguments}
    leaves = [flat[name].requires_grad_() for name in names]

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        given = {**flat, **dict(zip(names, tensors, strict=True))}
        return run(state=(given.pop("h"), given.pop("c")), **given)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


@pytest.mark.parametrize("run", FUSED_STEPS)
def test_gates_are_kept_only_for_a_backward_pass(run: Run) -> None:
    arguments = SMALL["lstm_step"].inputs(torch.float32, run.device)
    with Recorder() as recorder:
        run(**arguments)
        arguments["w_ih"].requires_grad_()
        run(**arguments)
        with torch.no_grad():
            run(**arguments)
    assert [(op._opname, flat[-1]) for op, flat in recorder.calls] == [
        ("lstm_step", False),
        ("lstm_step", True),
        ("lstm_step", False),
    ]


@pytest.mark.parametrize("run", FUSED_STEPS)
def test_autocast_changes_no_gradient_of_a_step_outside(run: Run) -> None:
    arguments = SMALL["lstm_step"].inputs(torch.float32, run.device)
    leaves = [x.requires_grad_() for x in float_tensors(arguments).values()]
    h, c = of_tensors(run, arguments)(*leaves)
    expected = torch.autograd.grad(h.sum() + c.sum(), leaves, retain_graph=True)
    with torch.autocast(run.device, torch.bfloat16):
        actual = torch.autograd.grad(h.sum() + c.sum(), leaves)
    assert all(map(torch.equal, actual, expected))
