"""What reading and writing through a filterbank are: linear, adjoint, and one pass where two would do."""

import pytest
import torch

from fastdraw import dispatch, reference

from .cases import Inputs, Run, every_run
from .checking import Arguments, assert_matches_reference


def inside(batch: int, device: str) -> torch.Tensor:
    """Windows whose filters lie well within a 32 x 64 image."""
    window = 0.2 * torch.randn(batch, 5, dtype=torch.float64, device=device)
    window[:, 3] -= 2
    return window


def sibling(run: Run, op: str) -> Run:
    return run._replace(op=op)


@every_run("glimpse_read")
def test_reading_a_constant_gives_gamma_times_it(run: Run) -> None:
    window = inside(4, run.device)
    patch = run(image=torch.full((4, 2, 32, 64), 3.0, dtype=torch.float64, device=run.device), window=window, n=6)
    expected = (3 * window[:, 4].exp())[:, None, None, None].expand_as(patch)
    torch.testing.assert_close(patch, expected)


@pytest.mark.parametrize("stride", ["max", "per_axis"])
@every_run("glimpse_read")
def test_reading_is_the_adjoint_of_writing(run: Run, stride: str) -> None:
    """<read(x), p> / gamma = <x, write(p)> gamma, for any x and p."""
    window = torch.randn(3, 5, dtype=torch.float64, device=run.device)
    image = torch.randn(3, 2, 9, 13, dtype=torch.float64, device=run.device)
    patch = torch.randn(3, 2, 4, 4, dtype=torch.float64, device=run.device)
    gamma = window[:, 4].exp()
    read = (run(image=image, window=window, n=4, stride=stride) * patch).sum((1, 2, 3)) / gamma
    written = sibling(run, "glimpse_write")(patch=patch, window=window, size=(9, 13), stride=stride)
    torch.testing.assert_close(read, (image * written).sum((1, 2, 3)) * gamma)


@every_run("glimpse_read")
def test_reading_is_the_three_factors(run: Run) -> None:
    window = torch.randn(2, 5, dtype=torch.float64, device=run.device)
    image = torch.randn(2, 3, 5, 7, dtype=torch.float64, device=run.device)
    fy, fx, gamma = sibling(run, "gaussian_filterbank")(window=window, n=4, size=(5, 7))
    expected = torch.einsum("b,bih,bchw,bjw->bcij", gamma, fy, image, fx)
    torch.testing.assert_close(run(image=image, window=window, n=4), expected)


@every_run("glimpse_write")
def test_writing_is_the_three_factors_added_to_the_canvas(run: Run) -> None:
    window = torch.randn(2, 5, dtype=torch.float64, device=run.device)
    patch = torch.randn(2, 3, 4, 4, dtype=torch.float64, device=run.device)
    canvas = torch.randn(2, 3, 5, 7, dtype=torch.float64, device=run.device)
    fy, fx, gamma = sibling(run, "gaussian_filterbank")(window=window, n=4, size=(5, 7))
    expected = torch.einsum("b,bih,bcij,bjw->bchw", 1 / gamma, fy, patch, fx)
    torch.testing.assert_close(run(patch=patch, window=window, size=(5, 7)), expected)
    torch.testing.assert_close(run(patch=patch, window=window, size=(5, 7), canvas=canvas), canvas + expected)


@pytest.mark.parametrize("stride", ["max", "per_axis"])
@every_run("draw_read")
def test_draw_read_is_two_reads(run: Run, stride: str) -> None:
    window = torch.randn(3, 5, dtype=torch.float64, device=run.device)
    image = torch.rand(3, 2, 9, 13, dtype=torch.float64, device=run.device)
    canvas = torch.randn(3, 2, 9, 13, dtype=torch.float64, device=run.device)
    read = sibling(run, "glimpse_read")
    first = read(image=image, window=window, n=4, stride=stride)
    second = read(image=image - torch.sigmoid(canvas), window=window, n=4, stride=stride)
    expected = torch.cat([first.flatten(1), second.flatten(1)], dim=1)
    torch.testing.assert_close(run(image=image, canvas=canvas, window=window, n=4, stride=stride), expected)


@every_run("draw_read")
def test_a_finished_canvas_has_no_error_to_read(run: Run) -> None:
    canvas = torch.randn(2, 1, 8, 8, dtype=torch.float64, device=run.device)
    glimpses = run(image=torch.sigmoid(canvas), canvas=canvas, window=inside(2, run.device), n=3)
    torch.testing.assert_close(glimpses[:, 9:], torch.zeros_like(glimpses[:, 9:]))
    assert glimpses[:, :9].abs().max() > 0.1


@every_run("glimpse_read")
def test_a_window_off_the_image_reads_nothing(run: Run) -> None:
    window = torch.tensor([[9.0, 0.0, 0.0, 0.0, 0.0]], device=run.device)
    assert run(image=torch.ones(1, 1, 8, 8, device=run.device), window=window, n=3).abs().max() < 1e-6


# C, H, W, N: images of several tiles and strips, on every backend, of which the last are not whole.
@pytest.mark.parametrize("sizes", [(2, 70, 150, 9), (1, 129, 40, 33)], ids=str)
@every_run("glimpse_read", "glimpse_write", "draw_read")
def test_large_images_match_reference(run: Run, sizes: tuple[int, ...]) -> None:
    C, H, W, N = sizes

    def make(dtype: torch.dtype) -> Arguments:
        inputs = Inputs(str(sizes), dtype, run.device)
        tensors = {
            "glimpse_read": {"image": inputs.normal(1, C, H, W), "n": N},
            "glimpse_write": {"patch": inputs.normal(1, C, N, N), "size": (H, W)},
            "draw_read": {"image": inputs.uniform(1, C, H, W), "canvas": inputs.normal(1, C, H, W), "n": N},
        }
        return {**tensors[run.op], "window": inputs.window(1)}

    assert_matches_reference(run, getattr(reference, run.op), make, torch.float32)


@pytest.mark.skipif(not dispatch.emulated, reason="GPUs differ in what fits")
@every_run("glimpse_read", "glimpse_write")
def test_a_glimpse_that_does_not_fit_is_an_error(run: Run) -> None:
    window, n = torch.zeros(1, 5), 300
    arguments = {"image": torch.zeros(1, 1, 5, 7), "n": n}
    if run.op == "glimpse_write":
        arguments = {"patch": torch.zeros(1, 1, n, n), "size": (5, 7)}
    with pytest.raises(RuntimeError, match=f"{run.op}: a glimpse of 300 x 300 needs .* of shared memory"):
        run(window=window, **arguments)
