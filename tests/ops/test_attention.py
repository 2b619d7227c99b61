"""What additive attention is: a distribution over the items that count."""

import pytest
import torch

from fastdraw import reference

from .cases import Inputs, Run, every_run, parameter, runs
from .checking import Arguments, assert_matches_reference

ATTENTION = every_run("additive_attention")
# Triton takes all items of a sample at once.
BY_ITEM = [parameter(run) for run in runs("additive_attention") if run.backend != "triton"]


def tensors(run: Run, B: int = 4, L: int = 5, A: int = 7, D: int = 3) -> dict[str, torch.Tensor]:
    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, device=run.device)

    return {"query": normal(B, A), "keys": normal(B, L, A), "values": normal(B, L, D), "v": normal(A)}


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
@ATTENTION
def test_equals_a_loop_over_the_items(run: Run, dtype: torch.dtype) -> None:
    given = tensors(run)
    lengths = [5, 1, 3, 2]
    context, weights = run(**given, lengths=torch.tensor(lengths, dtype=dtype, device=run.device))
    for b, length in enumerate(lengths):
        scores = torch.stack([given["v"] @ torch.tanh(given["query"][b] + given["keys"][b, i]) for i in range(length)])
        expected = scores.exp() / scores.exp().sum()
        torch.testing.assert_close(weights[b, :length], expected)
        torch.testing.assert_close(context[b], sum(expected[i] * given["values"][b, i] for i in range(length)))
        assert not weights[b, length:].any()


@ATTENTION
def test_weights_sum_to_one(run: Run) -> None:
    _, weights = run(**tensors(run), lengths=torch.tensor([1, 2, 3, 5], device=run.device))
    torch.testing.assert_close(weights.sum(1), torch.ones_like(weights[:, 0]))


@ATTENTION
def test_items_beyond_the_length_have_no_say(run: Run) -> None:
    given = {name: x.requires_grad_() for name, x in tensors(run, B=1).items()}
    context, _ = run(**given, lengths=torch.tensor([2], device=run.device))
    dkeys, dvalues = torch.autograd.grad(context.square().sum(), [given["keys"], given["values"]])
    assert not dkeys[:, 2:].any()
    assert not dvalues[:, 2:].any()
    assert dkeys[:, :2].any()
    with torch.no_grad():
        given["keys"][:, 2:], given["values"][:, 2:] = torch.inf, 1e300
    assert torch.equal(run(**given, lengths=torch.tensor([2], device=run.device))[0], context)


@ATTENTION
def test_a_nan_in_one_sample_stays_there(run: Run) -> None:
    given = tensors(run)
    given["keys"][1, 2, 3] = torch.nan
    context, weights = run(**given)
    assert weights.isnan().all(1).tolist() == context.isnan().all(1).tolist() == [False, True, False, False]


@ATTENTION
def test_many_v_on_one_batch(run: Run) -> None:
    given = tensors(run)

    def loss(v: torch.Tensor) -> torch.Tensor:
        return run(**{**given, "v": v})[0].square().sum()

    gradient = torch.func.grad(loss)
    many = torch.stack([given["v"], 2 * given["v"], -given["v"]])
    torch.testing.assert_close(torch.func.vmap(gradient)(many), torch.stack([gradient(v) for v in many]))


@ATTENTION
def test_without_lengths_all_items_count(run: Run) -> None:
    given = tensors(run)
    for without, full in zip(run(**given), run(**given, lengths=torch.full((4,), 5, device=run.device)), strict=True):
        torch.testing.assert_close(without, full)


@pytest.mark.parametrize("run", BY_ITEM)
def test_more_items_than_shared_memory_holds(run: Run) -> None:
    """And more units than one warp takes at once."""

    def make(dtype: torch.dtype) -> Arguments:
        inputs = Inputs("many items", dtype, run.device)
        return {
            "query": inputs.normal(2, 130),
            "keys": inputs.normal(2, 4500, 130),
            "values": inputs.normal(2, 4500, 2),
            "v": inputs.normal(130),
            "lengths": inputs.counts(4500, 4001),
        }

    assert_matches_reference(run, reference.additive_attention, make, torch.float32)
