"""The library in one screen: every op once, on whatever device there is."""

import doctest

import pytest
import torch

import fastdraw.nn
from fastdraw import ops, reference

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_tour(device: str) -> None:
    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(shape, device=device, requires_grad=True)

    B, C, H, W, N, L, D, A, U, Z = 2, 1, 8, 12, 3, 4, 5, 6, 7, 2
    image, canvas, window, state = rand(B, C, H, W), rand(B, C, H, W), rand(B, 5), (rand(B, U), rand(B, U))

    fy, fx, gamma = ops.gaussian_filterbank(window, N, (H, W))
    patch = ops.glimpse_read(image, window, N)
    canvas = ops.glimpse_write(patch, window, (H, W), canvas=canvas)
    glimpses = ops.draw_read(image, canvas, window, N)
    context, weights = ops.additive_attention(rand(B, A), rand(B, L, A), rand(B, L, D), rand(A))
    h, c = ops.lstm_step(torch.cat([glimpses, context], 1), state, rand(4 * U, 2 * C * N * N + D), rand(4 * U, U))
    h, c = ops.lstm_gates(h.repeat(1, 4), c)
    z, kl = ops.sample_kl(h[:, :Z], c[:, :Z], rand(B, Z))
    loss = kl + ops.gaussian_kl(z, z) + ops.bernoulli_nll(canvas, image) + ops.gaussian_nll(canvas, canvas, image)

    torch.testing.assert_close(patch, gamma[:, None, None, None] * (fy[:, None] @ image @ fx[:, None].mT))
    torch.testing.assert_close(weights.sum(1), torch.ones(B, device=device))
    (gradient,) = torch.autograd.grad(loss.sum(), image)
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("device", DEVICES)
def test_tour_of_a_rollout(device: str) -> None:
    B, C, H, W, N, L, D, A, U, Z, T = 2, 1, 8, 12, 3, 4, 5, 6, 7, 2, 3
    shapes = [
        (A, U),
        (A,),
        (A, D),
        (A,),
        (5, U),
        (5,),
        (4 * U, 2 * C * N * N + U),
        (4 * U, U),
        (4 * U,),
        (2 * Z, U),
        (2 * Z,),
    ]
    shapes += [(2 * Z, U), (2 * Z,), (4 * U, Z + D), (4 * U, U), (4 * U,), (C * N * N, U), (C * N * N,), (5, U), (5,)]
    shapes += [(U,), (U,), (C, H, W)]
    weights = ops.DrawWeights(*((torch.randn(shape, device=device) / 3).requires_grad_() for shape in shapes))
    image, labels, noise = (torch.rand(*shape, device=device) for shape in [(B, C, H, W), (B, L, D), (T, B, Z)])
    lengths = torch.tensor([1, 4], device=device)

    output = ops.draw_rollout(weights, image, labels, lengths, noise, n_read=N, n_write=N)
    bound = -(output.nll + output.kl.sum(0))
    drawn = ops.draw_generate(weights, labels, lengths, noise, n_write=N, frames=True)

    torch.testing.assert_close(
        output, reference.draw_rollout(weights, image, labels, lengths, noise, n_read=N, n_write=N)
    )
    assert drawn.shape == (T, B, C, H, W)
    assert all(gradient.any() for gradient in torch.autograd.grad(-bound.sum(), weights))


MODULES = [ops.attention, ops.filterbank, ops.glimpse, ops.latent, ops.likelihood, ops.lstm]
MODULES += [fastdraw.nn.attention, fastdraw.nn.glimpse, fastdraw.nn.lstm]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_examples_of_the_docstrings(module) -> None:
    names = {"torch": torch, **vars(ops), **vars(fastdraw.nn), **vars(module)}
    failed, tried = doctest.testmod(module, extraglobs=names)
    assert tried > 0
    assert failed == 0
