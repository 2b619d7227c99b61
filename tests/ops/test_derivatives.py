"""First and second derivatives of every op on every backend, against finite differences."""

import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from fastdraw import ops
from fastdraw.ops.op import NAMESPACES

from .cases import CASES, SMALL, TABLE, Case, Run, every_run, parameter, runs
from .checking import Arguments, float_tensors, of_tensors

ROLLOUTS = ("draw_rollout", "draw_generate")


def varied_together(run: Run) -> bool:
    """Whether inputs are varied in random directions: a rollout has too many, and an interpreter is slow."""
    return run.op in ROLLOUTS or os.environ.get("TRITON_INTERPRET") == "1"


@every_run()
def test_gradcheck(run: Run) -> None:
    function, leaves = _function_of_leaves(run, SMALL[run.op])
    assert torch.autograd.gradcheck(function, leaves, fast_mode=varied_together(run))


@every_run()
def test_gradgradcheck(run: Run) -> None:
    function, leaves = _function_of_leaves(run, SMALL[run.op])
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=varied_together(run))


@pytest.mark.parametrize("names", [("canvas",), ("patch",), ("window",), ("window", "canvas")], ids="-".join)
@every_run("glimpse_write")
def test_gradients_of_some_arguments_alone(run: Run, names: tuple[str, ...]) -> None:
    _assert_gradcheck_of(run, names)


@pytest.mark.parametrize("names", [("image",), ("canvas",), ("window",), ("canvas", "window")], ids="-".join)
@every_run("draw_read")
def test_gradients_of_a_read_with_respect_to_some(run: Run, names: tuple[str, ...]) -> None:
    _assert_gradcheck_of(run, names)


def _assert_gradcheck_of(run: Run, names: tuple[str, ...]) -> None:
    arguments = SMALL[run.op].inputs(torch.float64, run.device)
    leaves = [arguments[name].requires_grad_() for name in names]

    def function(*tensors: Tensor) -> Tensor:
        return run(**{**arguments, **dict(zip(names, tensors, strict=True))})

    assert torch.autograd.gradcheck(function, leaves, fast_mode=varied_together(run))
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=varied_together(run))


@every_run("gaussian_filterbank", "lstm_gates", "lstm_step", "sample_kl", "additive_attention")
def test_one_output_alone_can_be_differentiated(run: Run) -> None:
    function, leaves = _function_of_leaves(run, SMALL[run.op])
    for chosen in range(len(function(*leaves))):
        assert torch.autograd.gradcheck(lambda *tensors, chosen=chosen: function(*tensors)[chosen], leaves)


@every_run()
def test_func_grad_equals_autograd(run: Run) -> None:
    function, leaves = _function_of_leaves(run, SMALL[run.op])

    def loss(*tensors: Tensor) -> Tensor:
        return sum(y.sin().sum() for y in float_tensors({"output": function(*tensors)}).values())

    expected = torch.autograd.grad(loss(*leaves), leaves, allow_unused=True, materialize_grads=True)
    actual = torch.func.grad(loss, argnums=tuple(range(len(leaves))))(*(x.detach() for x in leaves))
    torch.testing.assert_close(actual, expected)


def _function_of_leaves(run: Run, case: Case):
    arguments = case.inputs(torch.float64, run.device)
    leaves = [x.requires_grad_() for x in float_tensors(arguments).values()]
    function = of_tensors(run, arguments)
    return lambda *tensors: _tuple(function(*tensors)), leaves


def _is_float(x) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _tuple(outputs):
    """A plain tuple of what gradcheck may differentiate."""
    flat = tuple(float_tensors({"output": outputs}).values())
    return flat if len(flat) > 1 else flat[0]


class Recorder(TorchDispatchMode):
    """Every call of our torch ops, below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op.namespace in NAMESPACES.values():
            self.calls.append((op, tree_map(lambda x: x.detach().clone() if isinstance(x, Tensor) else x, args)))
        return op(*args, **(kwargs or {}))


def torch_op_calls(run: Run, arguments: Arguments) -> list[tuple[Any, tuple[Any, ...]]]:
    """The torch ops that one forward and backward pass call, with their arguments."""
    leaves = [x.requires_grad_() for x in float_tensors(arguments).values()]
    with Recorder() as recorder:
        outputs = _tuple(of_tensors(run, arguments)(*leaves))
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        torch.autograd.grad(sum(y.sum() for y in outputs), leaves, allow_unused=True)
    return recorder.calls


FUSED = [(run, op) for op in TABLE for run in runs(op) if run.backend in TABLE[op].backends]
OPCHECKED = [case for case in CASES if case == SMALL[case.op] or case.name in ("no_canvas", "B5-U400", "B1-I1-U1")]


# torch reads .grad of whatever it makes fake, and hushes the warning too late.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    ("run", "case"),
    [parameter(run, case) for run, op in FUSED for case in OPCHECKED if case.op == op],
)
def test_opcheck(run: Run, case: Case) -> None:
    calls = torch_op_calls(run, case.inputs(torch.float32, run.device))
    assert [op._opname for op, _ in calls] == [case.op, f"{case.op}_bwd"]
    for op, arguments in calls:
        # Autograd of the checks themselves wants inputs that require gradients.
        arguments = [x.requires_grad_() if _is_float(x) else x for x in arguments]
        results = torch.library.opcheck(op, arguments)
        assert set(results.values()) == {"SUCCESS"}, results


@pytest.mark.parametrize(("run", "op"), [parameter(run, op) for run, op in FUSED])
def test_schemas_in_python_and_cpp_are_equal(run: Run, op: str) -> None:
    native, namespace = TABLE[op].native, NAMESPACES[run.backend]
    for name, schema in ((op, native.schema), (f"{op}_bwd", native.schema_bwd)):
        registered = getattr(getattr(torch.ops, namespace), name).default._schema
        assert registered == torch._C.parse_schema(f"{namespace}::{name}{schema}")


@pytest.mark.parametrize(("run", "op"), [parameter(run, op) for run, op in FUSED])
def test_eager_path_equals_the_registered_one(run: Run, op: str) -> None:
    torch_op = TABLE[op].fused[run.backend]
    arguments = torch_op_calls(run, SMALL[op].inputs(torch.float64, run.device))[0][1]
    leaves = [x.requires_grad_() for x in arguments if _is_float(x)]

    def with_derivatives(call) -> list[Tensor]:
        outputs = call(*arguments)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        unused = {"allow_unused": True, "materialize_grads": True}
        first = torch.autograd.grad(sum(y.sin().sum() for y in outputs), leaves, create_graph=True, **unused)
        second = torch.autograd.grad(sum(dx.square().sum() for dx in first), leaves, **unused)
        return [*outputs, *first, *second]

    for eager, registered in zip(with_derivatives(torch_op), with_derivatives(torch_op.overload), strict=True):
        assert torch.equal(eager, registered)


def test_every_op_with_kernels_is_checked() -> None:
    with_kernels = {op.name for op in ops.TABLE if op.backends}
    assert with_kernels <= set(SMALL)
