"""The cache of graphs: what runs when, whose memory is whose. In place of a GPU's capture the pass runs again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fastdraw.kernels import graphs

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="tests/gpu captures")


class Doubled:
    """2 x, in memory of its own."""

    made = 0

    def __init__(self) -> None:
        Doubled.made += 1
        self.x, self.y = torch.empty(2), torch.empty(2)

    def run(self) -> None:
        torch.mul(self.x, 2, out=self.y)


def doubled(x: torch.Tensor, shape: object = "shape", name: str = "double", fail: bool = False) -> torch.Tensor:
    def results(made: Doubled, stays: bool) -> torch.Tensor:
        if fail:
            raise MemoryError
        return made.y.clone() if stays else made.y

    return graphs.run(shape, name, CPU, Doubled, lambda made: made.x.copy_(x), results)


@pytest.fixture(autouse=True)
def _no_shapes() -> Iterator[None]:
    graphs.clear()
    Doubled.made = 0
    yield
    graphs.clear()


def test_the_second_call_captures_and_later_ones_replay() -> None:
    inputs = [torch.full((2,), float(k)) for k in range(5)]
    outputs = [doubled(x) for x in inputs]
    assert Doubled.made == 2  # for the first call, and for the graph
    for x, y in zip(inputs, outputs, strict=True):
        assert torch.equal(y, 2 * x)  # no call wrote into the results of another


def test_passes_of_one_shape_have_graphs_of_their_own() -> None:
    for name in ("forward", "backward") * 3:
        assert torch.equal(doubled(torch.ones(2), name=name), torch.full((2,), 2.0))
    assert Doubled.made == 4


def test_the_oldest_shape_is_forgotten() -> None:
    for shape in range(graphs.MAX_SHAPES):
        doubled(torch.ones(2), shape)
        doubled(torch.ones(2), shape)
    doubled(torch.ones(2), 0)  # which makes 1 the oldest
    doubled(torch.ones(2), "new")
    Doubled.made = 0
    doubled(torch.ones(2), 0)
    assert Doubled.made == 0
    doubled(torch.ones(2), 1)
    assert Doubled.made == 1


def test_another_precision_is_another_shape() -> None:
    for _ in range(2):
        doubled(torch.ones(2))
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        doubled(torch.ones(2))
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
    assert Doubled.made == 3


def test_a_failure_leaves_the_cache_usable() -> None:
    for fail in (False, True, False, True, False):
        if fail:
            with pytest.raises(MemoryError):
                doubled(torch.ones(2), fail=True)
        else:
            assert torch.equal(doubled(torch.ones(2)), torch.full((2,), 2.0))


def test_memory_made_in_inference_mode_serves_outside() -> None:
    with torch.inference_mode():
        for _ in range(3):
            doubled(torch.ones(2))
    assert torch.equal(doubled(torch.ones(2)), torch.full((2,), 2.0))


def test_threads_do_not_meet_in_one_memory() -> None:
    inputs = [torch.full((2,), float(k)) for k in range(200)]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(doubled, inputs))
    assert all(torch.equal(y, 2 * x) for x, y in zip(inputs, outputs, strict=True))
