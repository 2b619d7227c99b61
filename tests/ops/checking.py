"""The accuracy rule of every op: at most twice the error of plain PyTorch in the same dtype, against float64."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map

# What rounding alone may do, in ulp of the largest element. Half precision is computed in float32 and rounded once.
SLACK = {torch.float32: 4, torch.float64: 4, torch.bfloat16: 2, torch.float16: 2}
# float64 is held against float64: both are off, and how far is guessed from float32.
FLOAT64_FACTOR = 16

Arguments = Mapping[str, Any]


def float_tensors(arguments: Any) -> dict[str, Tensor]:
    """The float tensors among `arguments`, by name; a tensor that is passed twice is there once."""
    found: dict[str, Tensor] = {}
    for path, x in tree_flatten_with_path(arguments)[0]:
        if isinstance(x, Tensor) and x.is_floating_point() and all(x is not y for y in found.values()):
            found[keystr(path)] = x
    return found


def of_tensors(function: Callable[..., Any], arguments: Arguments) -> Callable[..., Any]:
    """`function` as a function of the float tensors of `arguments` alone, in the order of `float_tensors`."""
    originals = [id(x) for x in float_tensors(arguments).values()]

    def call(*tensors: Tensor) -> Any:
        swap = dict(zip(originals, tensors, strict=True))
        return function(**tree_map(lambda x: swap.get(id(x), x), arguments))

    return call


def run(function: Callable[..., Any], arguments: Arguments, rounded: torch.dtype | None = None) -> dict[str, Tensor]:
    """Outputs of `function` and gradients of its float tensors, by name; `rounded` can hold the upstream gradients."""
    leaves = {name: x.detach().requires_grad_() for name, x in float_tensors(arguments).items()}
    outputs = float_tensors({"output": of_tensors(function, arguments)(*leaves.values())})
    generator = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, dtype=torch.float64, generator=generator) for y in outputs.values()]
    upstream = [dy.to(rounded or y.dtype).to(y) for dy, y in zip(upstream, outputs.values(), strict=True)]
    gradients = torch.autograd.grad(
        list(outputs.values()), list(leaves.values()), upstream, allow_unused=True, materialize_grads=True
    )
    named = dict(zip((f"gradient of {name}" for name in leaves), gradients, strict=True))
    return {name: y.detach() for name, y in (outputs | named).items()}


def max_error(actual: Tensor, exact: Tensor) -> float:
    """The largest error. It is infinite at a NaN, and at an infinity for a number that the dtype can hold."""
    if actual.numel() == 0:
        return 0.0
    limits, value = torch.finfo(actual.dtype), actual.double()
    # A number close to the limit may be rounded across it.
    overflows = exact.abs() > limits.max * (1 - 4 * limits.eps)
    error = (value - exact.clamp(limits.min, limits.max)).abs()
    error = error.masked_fill(overflows & (value == exact.sign() * torch.inf), 0.0)
    return error.nan_to_num(torch.inf).max().item()


def assert_accurate(name: str, actual: Tensor, exact: Tensor, plain_error: float, steps: int = 1) -> None:
    """Assert that `actual` is no NaN and, but for rounding, at most twice as far from `exact` as `plain_error`."""
    assert actual.shape == exact.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    limits, error = torch.finfo(actual.dtype), max_error(actual, exact)
    scale = min(exact.abs().max().item(), limits.max) if exact.numel() else 0.0
    # A subnormal result has fewer digits: `tiny * eps` is the distance between two of them.
    bound = 2 * plain_error + steps * SLACK[actual.dtype] * limits.eps * max(scale, limits.tiny)
    assert not actual.isnan().any(), f"{name}: NaN"
    assert error <= bound, (
        f"{name}: error {error:.3g}, bound {bound:.3g}, plain PyTorch {plain_error:.3g}, scale {scale:.3g}"
    )


def assert_matches_reference(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    make: Callable[[torch.dtype], Arguments],
    dtype: torch.dtype,
    steps: int = 1,
) -> None:
    """Assert the accuracy rule for every output and gradient of `function` on `make(dtype)`.

    `steps` is how many ops follow one another, each of which carries on the rounding of the one before.
    """
    actual = run(function, make(dtype))
    exact = run(reference, to_float64(make(dtype)), rounded=dtype)
    plain, plain_exact, factor = run(reference, make(dtype)), exact, 1.0
    if dtype == torch.float64:
        plain = run(reference, make(torch.float32))
        plain_exact = run(reference, to_float64(make(torch.float32)), rounded=torch.float32)
        factor = FLOAT64_FACTOR / 2 * torch.finfo(torch.float64).eps / torch.finfo(torch.float32).eps
    assert actual.keys() == exact.keys()
    for name, value in actual.items():
        assert value.dtype == dtype, f"{name}: {value.dtype}, expected {dtype}"
        assert_accurate(name, value, exact[name], factor * max_error(plain[name], plain_exact[name]), steps)


def to_float64(arguments: Arguments) -> Arguments:
    """The same numbers in float64; a tensor that is passed twice is still one tensor."""
    doubles = {id(x): x.double() for x in float_tensors(arguments).values()}
    return tree_map(lambda x: doubles.get(id(x), x), arguments)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
