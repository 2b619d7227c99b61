"""Every op captured into a user's own CUDA graph, on several streams at once, and called by several threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from ..ops.cases import SMALL, Case, Draw, Inputs, Run
from ..ops.checking import of_tensors
from .machine import (
    DEVICE,
    DRY,
    captured,
    every_case_on_gpu,
    leaves_of,
    new_stream,
    on_gpu,
    other_leaves,
    pass_through,
    prepared,
    synchronize,
)

pytestmark = pytest.mark.gpu

THREADS = 1 if DRY else 4  # Triton's interpreter knows one
ROUNDS = 2 if DRY else 10


@every_case_on_gpu()
def test_a_captured_graph_replays_on_new_inputs(run: Run, case: Case) -> None:
    function, leaves = prepared(run, case)
    others = other_leaves(case, "others")
    expected = pass_through(function, others)
    actual, replay = captured(lambda: pass_through(function, leaves))
    for _ in range(2):
        _copy(leaves, others)
        replay()
        torch.testing.assert_close(actual, expected)


@on_gpu()
def test_a_replay_survives_the_calls_around_it(run: Run) -> None:
    """Calls of the same and of another shape between two replays take none of the graph's memory."""
    case = SMALL[run.op]
    function, leaves = prepared(run, case)
    actual, replay = captured(lambda: pass_through(function, leaves))
    replay()
    expected = [x.clone() for x in actual]
    for seed in ("one", "two"):
        pass_through(function, other_leaves(case, seed))
    for x in actual:
        x.fill_(torch.nan)
    replay()
    for x, y in zip(actual, expected, strict=True):
        assert torch.equal(x, y)


@on_gpu("draw_rollout")
def test_a_training_step_in_one_graph(run: Run) -> None:
    """Forward, backward and update, captured once and replayed: as the loop without a graph."""

    def train(replayed: bool) -> list[Tensor]:
        arguments = Draw(B=3, T=3).rollout(Inputs("train", torch.float32, DEVICE))
        weights = [w.requires_grad_() for w in arguments["weights"]]

        def step() -> list[Tensor]:
            output = run(**arguments)
            gradients = torch.autograd.grad((output.nll + output.kl.sum(0)).mean(), weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight.sub_(0.01 * gradient)
            return [output.nll.detach()]

        if replayed:
            before = [w.detach().clone() for w in weights]
            _, replay = captured(step)
            _copy(weights, before)  # the warm-up took steps too
        for _ in range(4):
            replay() if replayed else step()
        return [w.detach() for w in weights]

    torch.testing.assert_close(train(replayed=True), train(replayed=False))


@every_case_on_gpu()
def test_two_streams_at_once(run: Run, case: Case) -> None:
    function, _ = prepared(run, case)
    batches = [other_leaves(case, seed) for seed in ("first", "second")]
    expected = [pass_through(function, leaves) for leaves in batches]
    streams = [new_stream(), new_stream()]
    synchronize()
    rounds = []
    for _ in range(ROUNDS):
        for stream, leaves in zip(streams, batches, strict=True):
            with stream:
                rounds.append(pass_through(function, leaves))
    synchronize()
    for number, actual in enumerate(rounds):
        torch.testing.assert_close(actual, expected[number % 2])


@on_gpu()
def test_four_threads_at_once(run: Run) -> None:
    """Two threads on the default stream, two on their own; all of one shape."""
    case = SMALL[run.op]
    function, _ = prepared(run, case)
    batches = [other_leaves(case, f"thread {k}") for k in range(4)]
    expected = [pass_through(function, leaves) for leaves in batches]
    synchronize()

    def work(k: int) -> list[list[Tensor]]:
        if k % 2:
            with new_stream():
                found = [pass_through(function, batches[k]) for _ in range(ROUNDS)]
        else:
            found = [pass_through(function, batches[k]) for _ in range(ROUNDS)]
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        rounds = list(pool.map(work, range(4)))
    synchronize()  # not in the threads, one of which may be capturing
    for k, found in enumerate(rounds):
        for actual in found:
            torch.testing.assert_close(actual, expected[k])


@on_gpu("draw_rollout", "draw_generate")
def test_threads_with_shapes_of_their_own(run: Run) -> None:
    def leaves_and_call(size: int):
        # Of canvases that take more shared memory than a kernel has unasked, each another amount.
        draw = Draw(B=size, T=1 + size % 3, H=2 + size if DRY else 32 * size, W=4 if DRY else 64)
        arguments = getattr(draw, run.op.removeprefix("draw_"))(Inputs(f"size {size}", torch.float32, DEVICE))
        return of_tensors(run, arguments), leaves_of(arguments)

    calls = [leaves_and_call(size) for size in range(1, 9)]
    expected = [pass_through(*call) for call in calls]
    synchronize()

    def work(k: int) -> list[list[Tensor]]:
        return [pass_through(*calls[(k + turn) % len(calls)]) for turn in range(len(calls))]

    with ThreadPoolExecutor(THREADS) as pool:
        rounds = list(pool.map(work, range(4)))
    synchronize()
    for k, found in enumerate(rounds):
        for turn, actual in enumerate(found):
            torch.testing.assert_close(actual, expected[(k + turn) % len(calls)])


def _copy(leaves: list[Tensor], others: list[Tensor]) -> None:
    with torch.no_grad():
        for x, other in zip(leaves, others, strict=True):
            x.copy_(other)
