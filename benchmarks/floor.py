"""The floor of a training step: every matrix product of forward and backward once, and nothing else.

Products are as few and as large as the flow of data allows: one for all that depends on the same vector, over all
steps at once where no later step waits for it. Each is a plain `torch.mm` or `torch.mv` into memory that is there
already, with its operands in whichever layout is fastest. The glimpses (filters times images) are not counted, nor is
anything between the products, so that no real step can do with less.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.work import Work
from fastdraw.models import Draw

TRIALS = 7


class Product(NamedTuple):
    """(rows, inner) x (inner, columns), so many times."""

    rows: int
    inner: int
    columns: int
    times: int


class Floor(NamedTuple):
    """The products, in the order in which they are run."""

    once: list[Product]  # over all steps at once
    forward: list[Product]  # at every step
    backward: list[Product]

    @property
    def multiply_adds(self) -> int:
        return sum(p.rows * p.inner * p.columns * p.times for products in self for p in products)


def training_floor(work: Work, model: Draw) -> Floor:
    """The products of a training step; no gradient flows to image, labels and noise."""
    w, batch, steps = model.weights, work.batch, work.steps
    attention, label = w.align_key.shape
    units, latent = work.hidden, w.posterior.shape[0] // 2
    glimpse = w.enc_ih.shape[1] - units
    # All that depends on h_dec and that the next step waits for; the prior can wait.
    of_h_dec = attention + len(w.read_window) + 4 * units + 4 * units + len(w.patch) + len(w.write_window)
    forward = [
        (units, of_h_dec),
        (glimpse + units, 4 * units),  # [r, h_enc]: the encoder's gates
        (units, 2 * latent),  # h_enc: the posterior
        (latent + label, 4 * units),  # [z, y]: the decoder's gates
    ]
    prior, keys = (units, 2 * latent), (label, attention)
    samples, items = steps * batch, work.batch * work.digits
    return Floor(
        [
            Product(items, *keys, 1),
            Product(samples, *prior, 1),
            Product(samples, *reversed(prior), 1),
            # The gradients of weights: sums over the samples of all steps.
            Product(keys[0], items, keys[1], 1),
            Product(units, samples, of_h_dec + 2 * latent, 1),
            *(Product(inner, samples, columns, 1) for inner, columns in forward[1:]),
        ],
        [Product(batch, inner, columns, steps) for inner, columns in forward],
        [Product(batch, columns, inner, steps) for inner, columns in reversed(forward)],
    )


def floor_step(work: Work) -> Callable[[], None]:
    """A call that runs the products of a training step."""
    floor = training_floor(work, work.model())
    once, forward, backward = ([_fastest(product) for product in products] for products in floor)

    def step() -> None:
        for level in (forward, backward):
            for t in range(work.steps):
                for product in level:
                    product(t)
        for product in once:
            product(0)

    return step


def _fastest(product: Product) -> Callable[[int], object]:
    """The product as a function of the step, in the layout that is fastest here."""
    candidates = [
        _call(product, left, right, out) for left in (False, True) for right in (False, True) for out in (False, True)
    ]
    if product.rows == 1:
        candidates += [_call_vector(product, right) for right in (False, True)]
    return min(candidates, key=lambda call: min(_seconds(call) for _ in range(TRIALS)))


def _call(product: Product, left: bool, right: bool, out: bool) -> Callable[[int], object]:
    """left, right, out: whether the operand lies in memory column by column."""
    rows, inner, columns, times = product
    a = _matrices(left, times, rows, inner)
    (b,), (y,) = _matrices(right, 1, inner, columns), _matrices(out, 1, rows, columns)
    return lambda t: torch.mm(a[t], b, out=y)


def _call_vector(product: Product, right: bool) -> Callable[[int], object]:
    _, inner, columns, times = product
    a, (b,), y = torch.randn(times, inner), _matrices(right, 1, columns, inner), torch.empty(columns)
    return lambda t: torch.mv(b, a[t], out=y)


def _matrices(by_columns: bool, count: int, rows: int, columns: int) -> Tensor:
    if by_columns:
        return torch.randn(count, columns, rows).mT
    return torch.randn(count, rows, columns)


def _seconds(call: Callable[[int], object]) -> float:
    start = time.perf_counter()
    call(0)
    return time.perf_counter() - start
