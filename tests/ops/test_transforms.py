"""Every op under torch.compile, torch.export, torch.vmap, autocast and fake tensors."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from fastdraw import ops

from .cases import SMALL, Case, Inputs, Run, every_run, runs
from .checking import Arguments, float_tensors, of_tensors
from .checking import run as run_with_gradients

ROLLOUTS = ("draw_rollout", "draw_generate")
# What autocast makes of a call: sums over many numbers stay in float32, products are lowered.
FLOAT32_UNDER_AUTOCAST = ("gaussian_kl", "sample_kl", "bernoulli_nll", "gaussian_nll", *ROLLOUTS)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield
    torch._dynamo.reset()


@every_run(reference=False)
def test_compile_without_a_graph_break(run: Run) -> None:
    arguments, others = (_case(run, seed) for seed in ("first", "second"))
    expected, expected_of_others = run_with_gradients(run, arguments), run_with_gradients(run, others)
    with run.forced():
        compiled = torch.compile(getattr(ops, run.op), fullgraph=True, backend="aot_eager")
        _assert_close(run_with_gradients(compiled, arguments), expected)
        _assert_close(run_with_gradients(compiled, others), expected_of_others)  # and without a second compilation


@every_run(
    "glimpse_read", "glimpse_write", "draw_read", "lstm_gates", "additive_attention", "sample_kl", reference=False
)
def test_compile_for_any_batch(run: Run) -> None:
    with run.forced():
        compiled = torch.compile(getattr(ops, run.op), fullgraph=True, backend="aot_eager", dynamic=True)
        for batch in (6, 7, 11):  # no other size is one of these
            arguments = {
                name: x[:1].repeat(batch, *[1] * (x.dim() - 1)) if isinstance(x, Tensor) and name != "v" else x
                for name, x in _case(run, "first").items()
            }
            _assert_close(run_with_gradients(compiled, arguments), run_with_gradients(run, arguments))


def test_all_ops_compile_together_with_inductor() -> None:
    arguments = {op: case.inputs() for op, case in SMALL.items()}

    def every_op(**tensors: Any) -> list[Any]:
        return [getattr(ops, op)(**arguments) for op, arguments in tensors.items()]

    compiled = torch.compile(every_op, fullgraph=True)
    _assert_close(run_with_gradients(compiled, arguments), run_with_gradients(every_op, arguments))


class Module(nn.Module):
    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Any:
        return _flat(self.function(*tensors))


@every_run(reference=False)
def test_export_and_load(run: Run) -> None:
    arguments = _case(run, "first")
    tensors = tuple(float_tensors(arguments).values())
    with run.forced():
        program = torch.export.export(Module(of_tensors(getattr(ops, run.op), arguments)), tensors)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    actual = torch.export.load(file).module()(*tensors)
    torch.testing.assert_close(actual, _flat(run(**arguments)))


@every_run()
def test_vmap_equals_a_loop(run: Run) -> None:
    arguments = _case(run, "first")
    tensors = tuple(float_tensors(arguments).values())
    function = of_tensors(run, arguments)
    stacked = [torch.stack([x, x.flip(-1), x / 2], dim=1) for x in tensors]

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return _flat(function(*tensors))

    expected = [torch.stack(ys) for ys in zip(*(flat(*(x[:, i] for x in stacked)) for i in range(3)), strict=True)]
    actual = torch.func.vmap(flat, in_dims=1)(*stacked)
    torch.testing.assert_close(actual, tuple(expected))


@every_run("glimpse_read", "draw_read", "lstm_gates", "gaussian_kl")
def test_vmap_over_one_argument(run: Run) -> None:
    """The others are shared: many windows on one image."""
    function, (first, *others) = _function_of_tensors(run)
    last = others.pop()
    stacked = torch.stack([last, last / 2, 2 * last])
    expected = torch.stack([_flat(function(first, *others, x))[0] for x in stacked])
    actual = torch.func.vmap(lambda x: _flat(function(first, *others, x))[0])(stacked)
    torch.testing.assert_close(actual, expected)


@every_run("glimpse_read", "glimpse_write", "draw_read", "lstm_gates", "gaussian_kl", "additive_attention")
def test_gradients_of_single_samples(run: Run) -> None:
    """torch.func.vmap over torch.func.grad."""
    function, tensors = _function_of_tensors(run)
    stacked = [torch.stack([x, x / 2]) for x in tensors]

    def loss(*tensors: Tensor) -> Tensor:
        return sum(y.square().sum() for y in _flat(function(*tensors)))

    gradient = torch.func.grad(loss, argnums=tuple(range(len(tensors))))
    actual = torch.func.vmap(gradient)(*stacked)
    expected = [torch.stack(xs) for xs in zip(*(gradient(*(x[i] for x in stacked)) for i in range(2)), strict=True)]
    torch.testing.assert_close(actual, tuple(expected))


@every_run()
def test_fake_tensors_have_the_shapes_of_real_ones(run: Run) -> None:
    arguments = _case(run, "first")
    expected = run_with_gradients(run, arguments)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = tree_map(lambda x: mode.from_tensor(x) if isinstance(x, Tensor) else x, arguments)
        with run.forced():
            outputs = float_tensors({"output": getattr(ops, run.op)(**fake)})
    for name, y in outputs.items():
        assert (y.shape, y.dtype, y.device) == (expected[name].shape, expected[name].dtype, expected[name].device)


@every_run()
def test_autocast_brings_mixed_arguments_to_one_dtype(run: Run) -> None:
    lower = torch.bfloat16 if run in runs(run.op, torch.bfloat16) else torch.float16
    mixed = _mixed(SMALL[run.op], run.device, lower)
    wanted = torch.float32 if run.op in FLOAT32_UNDER_AUTOCAST else lower
    with torch.autocast(run.device, lower):
        actual = run_with_gradients(run, mixed)
        uniform = _cast(mixed, wanted)
        expected = run_with_gradients(run, uniform)
    for name, gradient in actual.items():
        if name.startswith("gradient"):
            assert gradient.dtype == float_tensors(mixed)[name.removeprefix("gradient of ")].dtype
        # The canvas keeps its dtype, so that a sum over many steps is not rounded at each.
        elif run.op == "glimpse_write":
            assert gradient.dtype == torch.float32
        elif run.op not in ROLLOUTS:
            assert gradient.dtype == wanted
        torch.testing.assert_close(gradient.float(), expected[name].float(), rtol=2e-2, atol=2e-2)


@every_run(*(op for op in SMALL if op not in ROLLOUTS))
def test_autocast_changes_nothing_but_the_arguments(run: Run) -> None:
    """Autocast that is still on inside the op would round its filters and products once more."""
    lower = torch.bfloat16 if run in runs(run.op, torch.bfloat16) else torch.float16
    arguments = SMALL[run.op].inputs(torch.float32, run.device)
    arguments.pop("canvas" if run.op == "glimpse_write" else "", None)  # which keeps its dtype

    def under_autocast(**arguments: Any) -> Any:
        with torch.autocast(run.device, lower):
            return run(**arguments)

    actual = run_with_gradients(under_autocast, arguments)
    wanted = torch.float32 if run.op in FLOAT32_UNDER_AUTOCAST else lower
    for name, expected in run_with_gradients(run, _cast(arguments, wanted)).items():
        assert torch.equal(actual[name].float(), expected.float()), name


@every_run("gaussian_filterbank", "glimpse_read", "glimpse_write", "draw_read", "lstm_gates", reference=False)
def test_second_derivatives_are_the_same_under_autocast(run: Run) -> None:
    function, tensors = _function_of_tensors(run)
    leaves = [x.requires_grad_() for x in tensors]

    def second_derivatives() -> tuple[Tensor, ...]:
        first = torch.autograd.grad(outputs, leaves, upstream, create_graph=True)
        loss = sum(dx.square().sum() for dx in first)
        return torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)

    outputs = _flat(function(*leaves))
    upstream = [y.detach().cos() for y in outputs]
    expected = second_derivatives()
    with torch.autocast(run.device, torch.bfloat16):
        actual = second_derivatives()
    assert any(x.any() for x in expected)
    assert all(torch.equal(x, y) for x, y in zip(actual, expected, strict=True))


@every_run()
def test_mixed_dtypes_without_autocast_are_an_error(run: Run) -> None:
    if len(float_tensors(SMALL[run.op].inputs())) == 1:
        pytest.skip("one tensor cannot be of two dtypes")
    with pytest.raises(TypeError, match=f"^{run.op}: .* is .*float.* and .* is .*float.*; give both one dtype"):
        run(**_mixed(SMALL[run.op], run.device, torch.bfloat16))


@every_run("glimpse_read", "lstm_gates")
def test_autocast_leaves_float64_alone(run: Run) -> None:
    arguments = SMALL[run.op].inputs(torch.float64, run.device)
    with torch.autocast(run.device, torch.bfloat16):
        assert all(y.dtype == torch.float64 for y in _flat(run(**arguments)))


def _case(run: Run, seed: str) -> Arguments:
    return SMALL[run.op].make(Inputs(seed, torch.float32, run.device))


def _function_of_tensors(run: Run):
    arguments = _case(run, "first")
    return of_tensors(run, arguments), list(float_tensors(arguments).values())


def _flat(outputs: Any) -> tuple[Tensor, ...]:
    return tuple(float_tensors({"output": outputs}).values())


def _mixed(case: Case, device: str, lower: torch.dtype) -> Arguments:
    """The first float tensor in `lower`, the others in float32."""
    arguments = case.inputs(torch.float32, device)
    first = next(iter(float_tensors(arguments).values()))
    return tree_map(lambda x: x.to(lower) if x is first else x, arguments)


def _cast(arguments: Arguments, dtype: torch.dtype) -> Arguments:
    return tree_map(lambda x: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x, arguments)


def _assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, msg=lambda text, name=name: f"{name}: {text}")
