"""The checker of all ops must reject what is wrong."""

import pytest
import torch

from .checking import assert_accurate, assert_matches_reference, float_tensors, run


def square_sum(x: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
    return factor * (x * x).sum(1)


def make(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    return {"x": torch.linspace(-1, 3, 12, dtype=torch.float64).reshape(3, 4).to(dtype)}


class WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x * x).sum(1)

    @staticmethod
    def backward(ctx, dy):
        return 1.99 * ctx.saved_tensors[0] * dy[:, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_accepts_the_reference_itself(dtype: torch.dtype) -> None:
    assert_matches_reference(square_sum, square_sum, make, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rejects_a_wrong_output(dtype: torch.dtype) -> None:
    with pytest.raises(AssertionError, match=r"\['output'\]: error .* bound"):
        assert_matches_reference(lambda x: square_sum(x, 1.0001), square_sum, make, dtype)


def test_rejects_float64_computed_in_float32() -> None:
    with pytest.raises(AssertionError, match="error"):
        assert_matches_reference(lambda x: square_sum(x.float()).double(), square_sum, make, torch.float64)


def test_rejects_a_wrong_gradient() -> None:
    with pytest.raises(AssertionError, match=r"gradient of \['x'\]"):
        assert_matches_reference(lambda x: WrongGradient.apply(x), square_sum, make, torch.float32)


def test_rejects_another_dtype() -> None:
    with pytest.raises(AssertionError, match=r"expected torch\.bfloat16"):
        assert_matches_reference(lambda x: square_sum(x).float(), square_sum, make, torch.bfloat16)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_rejects_what_is_not_finite(wrong: float) -> None:
    with pytest.raises(AssertionError):
        assert_accurate("y", torch.tensor([wrong, 1.0]), torch.tensor([2.0, 1.0]).double(), plain_error=0.0)


def test_rejects_nan_where_plain_pytorch_is_infinitely_wrong() -> None:
    with pytest.raises(AssertionError, match="y: NaN"):
        assert_accurate("y", torch.tensor([torch.nan]), torch.tensor([2.0]).double(), plain_error=torch.inf)


@pytest.mark.parametrize("exact", [1e6, 65520.0, 65400.0, torch.inf])
def test_accepts_infinity_for_what_the_dtype_cannot_hold(exact: float) -> None:
    y = torch.tensor([torch.inf, -torch.inf], dtype=torch.float16)
    assert_accurate("y", y, torch.tensor([exact, -exact]).double(), plain_error=0.0)


def test_accepts_the_largest_number_for_what_the_dtype_cannot_hold() -> None:
    assert_accurate("y", torch.tensor([65504.0]).half(), torch.tensor([1e6]).double(), plain_error=0.0)


@pytest.mark.parametrize(("wrong", "exact"), [(torch.inf, 6e4), (-torch.inf, 1e6), (6e4, 1e6), (6e4, torch.inf)])
def test_rejects_the_wrong_infinity(wrong: float, exact: float) -> None:
    y = torch.tensor([wrong, 65504.0], dtype=torch.float16)
    with pytest.raises(AssertionError, match="y: error"):
        assert_accurate("y", y, torch.tensor([exact, 65504.0]).double(), plain_error=100.0)


def test_rejects_another_shape() -> None:
    with pytest.raises(AssertionError, match=r"y: shape \(3,\), expected \(1, 3\)"):
        assert_accurate("y", torch.zeros(3), torch.zeros(1, 3).double(), plain_error=1.0)


def test_a_tensor_passed_twice_has_one_gradient() -> None:
    x = torch.tensor([[2.0, 3.0]], dtype=torch.float64)
    arguments = {"x": x, "y": x, "n": 2}
    assert list(float_tensors(arguments)) == ["['x']"]
    found = run(lambda x, y, n: n * x * y, arguments)
    torch.testing.assert_close(
        found["gradient of ['x']"],
        2 * 2 * x * torch.randn(1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    )


def test_uninitialised_memory_is_nan() -> None:
    assert torch.empty(3).isnan().all()
    assert torch.zeros(3).new_empty(2, dtype=torch.bfloat16).isnan().all()
