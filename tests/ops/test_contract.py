"""What the contract says of every op: accuracy, memory, determinism, independence of the samples of a batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from fastdraw import dispatch, reference

from ..emulation import in_reverse
from .cases import DTYPES, SMALL, Case, Draw, Inputs, Run, every_case, every_run
from .checking import Arguments, assert_matches_reference, float_tensors, run, threads
from .generated import given, st

# Arguments without a batch dimension; in a rollout, noise has it second.
UNBATCHED = ("v", "w_ih", "w_hh", "b_ih", "b_hh")
ROLLOUTS = ("draw_rollout", "draw_generate")


@every_case(*DTYPES)
def test_matches_reference(run: Run, case: Case, dtype: torch.dtype) -> None:
    steps = 4 if case.op in ROLLOUTS else 1
    reference_function = getattr(reference, case.op)
    assert_matches_reference(run, reference_function, lambda dtype: case.inputs(dtype, run.device), dtype, steps)


@every_run("gaussian_filterbank", "glimpse_read", "glimpse_write", "draw_read")
@given(
    sizes=st.tuples(*(st.integers(low, high) for low, high in [(0, 3), (1, 3), (1, 9), (1, 20), (1, 7)])),
    stride=st.sampled_from(["max", "per_axis"]),
)
def test_any_glimpse_shape_matches_reference(run: Run, sizes: tuple[int, ...], stride: str) -> None:
    B, C, H, W, N = sizes

    def make(dtype: torch.dtype) -> Arguments:
        inputs = Inputs(str(sizes), dtype, run.device)
        tensors = {
            "gaussian_filterbank": {"n": N, "size": (H, W)},
            "glimpse_read": {"image": inputs.normal(B, C, H, W), "n": N},
            "glimpse_write": {"patch": inputs.normal(B, C, N, N), "size": (H, W)},
            "draw_read": {"image": inputs.uniform(B, C, H, W), "canvas": inputs.normal(B, C, H, W), "n": N},
        }
        return {**tensors[run.op], "window": inputs.window(B), "stride": stride}

    assert_matches_reference(run, getattr(reference, run.op), make, torch.float32)


@every_run("lstm_gates", "lstm_step", "additive_attention", "sample_kl", "bernoulli_nll")
@given(B=st.integers(0, 4), U=st.integers(1, 70), L=st.integers(1, 5))
def test_any_vector_shape_matches_reference(run: Run, B: int, U: int, L: int) -> None:
    def make(dtype: torch.dtype) -> Arguments:
        inputs = Inputs(f"{B} {U} {L}", dtype, run.device)
        vector = [inputs.normal(B, U) for _ in range(3)]
        return {
            "lstm_gates": {"gates": inputs.normal(B, 4 * U), "c": vector[0]},
            "lstm_step": {
                "input": inputs.normal(B, L),
                "state": (vector[0], vector[1]),
                "w_ih": inputs.normal(4 * U, L, scale=0.2),
                "w_hh": inputs.normal(4 * U, U, scale=0.2),
            },
            "additive_attention": {
                "query": vector[0],
                "keys": inputs.normal(B, L, U),
                "values": inputs.normal(B, L, U),
                "v": inputs.normal(U),
            },
            "sample_kl": {"mu_q": vector[0], "log_sigma_q": vector[1], "noise": vector[2]},
            "bernoulli_nll": {"logits": vector[0], "target": inputs.uniform(B, U)},
        }[run.op]

    assert_matches_reference(run, getattr(reference, run.op), make, torch.float32)


def sliced(x: Tensor) -> Tensor:
    """The same numbers, every second one of a larger tensor, from an odd address on."""
    larger = x.new_full((*x.shape[:-1], 2 * x.shape[-1] + 1), torch.nan)
    larger[..., 1::2] = x
    return larger[..., 1::2]


def transposed(x: Tensor) -> Tensor:
    """The same numbers with the first dimension innermost."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def expanded(x: Tensor) -> Tensor:
    """The first row alone, at stride 0."""
    return x[:1].expand_as(x)


def shifted(x: Tensor) -> Tensor:
    """The same numbers side by side, from an odd address on, where no vector of 16 bytes starts."""
    memory = x.new_full((x.numel() + 1,), torch.nan)
    memory[1:] = x.flatten()
    return memory[1:].view(x.shape)


@pytest.mark.parametrize("layout", [sliced, transposed, expanded, shifted])
@every_case(torch.float32, long=False)
def test_strides_do_not_matter(run: Run, case: Case, dtype: torch.dtype, layout: Callable[[Tensor], Tensor]) -> None:
    arguments = case.inputs(dtype, run.device)
    laid_out = {id(x): layout(x) for x in float_tensors(arguments).values()}
    strided = tree_map(lambda x: laid_out.get(id(x), x), arguments)
    dense = {key: x.contiguous() for key, x in laid_out.items()}
    contiguous = tree_map(lambda x: dense.get(id(x), x), arguments)

    for expected, actual in zip(_run(run, contiguous).values(), _run(run, strided).values(), strict=True):
        _assert_same(actual, expected, bitwise=_is_ours(run))


@every_case(torch.float32, torch.float16, long=False)
def test_runs_are_equal_bit_for_bit(run: Run, case: Case, dtype: torch.dtype) -> None:
    expected = _run(run, case.inputs(dtype, run.device))
    actual = _run(run, case.inputs(dtype, run.device))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.skipif(not dispatch.emulated, reason="only the emulation can choose the order")
@every_case(torch.float32)
def test_threads_of_a_block_may_run_in_any_order(run: Run, case: Case, dtype: torch.dtype) -> None:
    expected = _run(run, case.inputs(dtype, run.device))
    with in_reverse():
        actual = _run(run, case.inputs(dtype, run.device))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


@every_run(*(op for op in SMALL if op not in (*ROLLOUTS, "lstm_step")))
def test_two_threads_equal_one_thread(run: Run) -> None:
    small = SMALL[run.op].inputs(torch.float32, run.device)
    # Enough for the CPU's kernels to share out; others know nothing of threads.
    times = 9999 if run.backend == "cpu" else 9
    arguments = {
        name: x.repeat(times, *[1] * (x.dim() - 1)) if isinstance(x, Tensor) and name not in UNBATCHED else x
        for name, x in small.items()
    }
    with threads(1):
        expected = _run(run, arguments)
    with threads(2):
        actual = _run(run, arguments)
    for name, value in expected.items():
        _assert_same(actual[name], value, bitwise=_is_ours(run))


@every_case(torch.float32, long=False)
def test_inputs_are_not_modified(run: Run, case: Case, dtype: torch.dtype) -> None:
    arguments = case.inputs(dtype, run.device)
    before = {name: x.clone() for name, x in float_tensors(arguments).items()}
    _run(run, arguments)
    for name, x in float_tensors(arguments).items():
        assert torch.equal(x, before[name]), name
        assert x._version == 0, name


@every_case(torch.float32, long=False)
def test_permuting_the_batch_permutes_the_outputs(run: Run, case: Case, dtype: torch.dtype) -> None:
    arguments = case.inputs(dtype, run.device)
    order = torch.arange(_batch(arguments), device=run.device).flip(0)
    expected = _outputs(run, arguments)
    actual = _outputs(run, _take(case.op, arguments, order))
    for y, z in zip(actual, expected, strict=True):
        _assert_same(y, z.index_select(_batch_dim(case.op, z), order), bitwise=_is_ours(run))


@every_run()
def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(run: Run) -> None:
    arguments = SMALL[run.op].inputs(torch.float32, run.device)
    empty = _take(run.op, arguments, torch.arange(0, device=run.device))
    for y, full in zip(_outputs(run, empty), _outputs(run, arguments), strict=True):
        shape = list(full.shape)
        shape[_batch_dim(run.op, full)] = 0
        assert list(y.shape) == shape
        assert y.dtype == full.dtype
    for name, gradient in _run(run, empty).items():
        assert not gradient.any(), name


@every_run("draw_rollout", "draw_generate")
def test_an_empty_batch_leaves_an_empty_trace(run: Run) -> None:
    arguments = getattr(Draw(B=0), run.op.removeprefix("draw_"))(Inputs("empty", torch.float32, run.device), trace=True)
    _, trace = run(**arguments)
    assert trace.attention.shape == (2, 0, 2)
    assert trace.canvas.shape == (2, 0, 1, 3, 4)


def _is_ours(run: Run) -> bool:
    """Whether the numbers come from our kernels alone. torch may multiply another way, and round otherwise."""
    return run.fused and run.op != "lstm_step" and (run.op not in ROLLOUTS or run.backend == "cpu")


def _assert_same(actual: Tensor, expected: Tensor, *, bitwise: bool) -> None:
    atol = 0.0 if bitwise or not expected.numel() else 1e-5 * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol, equal_nan=True)


def _run(function: Run, arguments: Arguments) -> dict[str, Tensor]:
    return run(function, arguments)


def _outputs(function: Run, arguments: Arguments) -> list[Tensor]:
    return list(float_tensors({"output": function(**arguments)}).values())


def _batch(arguments: Arguments) -> int:
    if "weights" in arguments:
        return arguments["noise"].shape[1]
    return next(x for name, x in arguments.items() if isinstance(x, Tensor) and name not in UNBATCHED).shape[0]


def _batch_dim(op: str, output: Tensor) -> int:
    # kl (T, B) and frames (T, B, C, H, W) come after time.
    return 1 if op in ROLLOUTS and output.dim() in (2, 5) else 0


def _take(op: str, arguments: Arguments, index: Tensor) -> Arguments:
    def take(name: str, x: Any) -> Any:
        if isinstance(x, tuple) and name == "state":
            return tuple(take(name, part) for part in x)
        if not isinstance(x, Tensor) or name in UNBATCHED:
            return x
        return x.index_select(1 if op in ROLLOUTS and name == "noise" else 0, index)

    return {name: take(name, x) for name, x in arguments.items()}
