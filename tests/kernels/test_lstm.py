"""The LSTM kernels, called without the op layer: on a GPU as they are, else in Triton's interpreter and on the host.

`test_interpreter.py` runs this file with TRITON_INTERPRET=1.
"""

import os

import pytest
import torch

from fastdraw import reference
from fastdraw.kernels import lstm
from fastdraw.kernels.compile import nvcc

from .cuda_on_host import lstm_launchers

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
FLOORS = ["triton", "cuda-on-host"] if INTERPRETED else ["triton", "cuda"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# Around the 512 samples of a one-unit tile and the 8 x 64 of a wide one; 400 is paper 000's size.
SIZES = [(0, 5), (1, 1), (511, 1), (512, 1), (513, 1), (7, 64), (8, 63), (9, 65), (3, 129), (5, 400)]
INF, NAN = float("inf"), float("nan")

if not INTERPRETED:
    pytestmark = [
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device (test_interpreter.py runs these)"),
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cuda-on-host")


@pytest.fixture(params=FLOORS)
def launch(request, folder):
    """The pair (forward, backward) of a floor."""
    if request.param == "triton":
        return lstm.lstm_gates, lstm.lstm_gates_bwd
    if request.param == "cuda-on-host":
        if nvcc() is None:
            pytest.skip("no CUDA toolkit, whose headers the kernels include")
        return lstm_launchers(folder)
    return torch.ops.fastdraw.lstm_gates, torch.ops.fastdraw.lstm_gates_bwd


def inputs(B, U, dtype, scale=2.0):
    """dh, dc_next, gates, c."""
    generator = torch.Generator().manual_seed(B * 1000 + U)
    shapes = (B, U), (B, U), (B, 4 * U), (B, U)
    return [(torch.randn(shape, generator=generator) * scale).to(DEVICE, dtype) for shape in shapes]


def eager(dh, dc_next, gates, c):
    """h', c', dgates, dc from plain PyTorch, in the dtype of the inputs."""
    gates, c = gates.detach().requires_grad_(), c.detach().requires_grad_()
    outputs = reference.lstm_gates(gates, c)
    return [*outputs, *torch.autograd.grad(outputs, (gates, c), (dh, dc_next))]


def kernels(launch, dh, dc_next, gates, c):
    forward, backward = launch
    return [*forward(gates, c), *backward(dh, dc_next, gates, c)]


def assert_close(launch, *arguments):
    """At most twice the error of eager PyTorch in the same dtype, and 4 ulp of the largest element."""
    expected = eager(*(x.double() for x in arguments))
    composed = eager(*arguments)
    actual = kernels(launch, *arguments)
    for name, y, plain, right in zip(("h", "c_next", "dgates", "dc"), actual, composed, expected, strict=True):
        assert y.shape == right.shape, name
        assert y.dtype == arguments[0].dtype, name
        assert y.is_contiguous(), name
        if y.numel() == 0:
            continue
        limit = 2 * (plain - right).abs().max() + 4 * torch.finfo(y.dtype).eps * (1 + right.abs().max())
        excess = ((y - right).abs() - limit).max().item()
        assert excess <= 0, f"{name}: {excess:.3g} beyond the bound"


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
@pytest.mark.parametrize(("B", "U"), SIZES, ids=lambda size: str(size))
def test_lstm_gates_matches_reference(launch, B, U, dtype):
    assert_close(launch, *inputs(B, U, dtype))


def test_lstm_gates_rows_apart(launch):
    padded = []
    for pad, x in enumerate(inputs(9, 12, torch.float32), start=1):
        wide = torch.full((9, x.shape[1] + 2 * pad), NAN, device=DEVICE)
        wide[:, pad:-pad] = x
        padded.append(wide[:, pad:-pad])
    assert_close(launch, *padded)


def test_lstm_gates_transposed_and_repeated_inputs(launch):
    dh, dc_next, gates, c = inputs(9, 12, torch.float32)
    repeated = dh[:1].expand(9, 12)  # one row for all, as the gradient of a sum is
    assert_close(launch, repeated, *(x.t().contiguous().t() for x in (dc_next, gates, c)))


def test_lstm_gates_unaligned_inputs(launch):
    B, U = 4, 8  # rows that fit vectors, from a start that does not
    shifted = []
    for x in inputs(B, U, torch.float32):
        memory = torch.full((x.numel() + 1,), NAN, device=DEVICE)
        memory[1:] = x.flatten()
        shifted.append(memory[1:].view_as(x))
    assert_close(launch, *shifted)


def test_fresh_memory_is_poisoned():
    # What lets every test here see an element that no thread writes.
    assert torch.zeros(1, device=DEVICE).new_empty(1).isnan().all()


def test_lstm_gates_leaves_inputs_alone(launch):
    arguments = inputs(3, 65, torch.float32)
    before = [x.clone() for x in arguments]
    kernels(launch, *arguments)
    assert all(map(torch.equal, arguments, before))


def test_lstm_gates_same_bits_every_time(launch):
    arguments = inputs(9, 65, torch.float32)
    assert all(map(torch.equal, kernels(launch, *arguments), kernels(launch, *arguments)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_tanh_is_right_to_rounding(launch, dtype):
    # i = o = 1 and f = 0, so that c' = tanh(g).
    limits = torch.tensor([1e-30, 1e-7, 0.01, 0.499, 0.5, 0.501, 2.0, 9.0, 40.0], dtype=torch.float64)
    g = torch.cat([-limits, limits]).to(DEVICE, dtype)
    open_, shut = torch.full_like(g, INF), torch.full_like(g, -INF)
    _, c_next = launch[0](torch.cat([open_, shut, g, open_])[None], torch.ones_like(g)[None])
    right = g.double().tanh()
    assert ((c_next[0] - right).abs() <= 4 * torch.finfo(dtype).eps * right.abs()).all()


def test_slopes_keep_their_digits_in_the_tails(launch):
    # With dh = 0, dc_next = 1 and c = 1 the forget gate's gradient is its slope, sigmoid(x) sigmoid(-x).
    x = torch.tensor([-80.0, -20.0, -1.0, 0.0, 1.0, 20.0, 80.0], device=DEVICE)
    zero, one = torch.zeros_like(x)[None], torch.ones_like(x)[None]
    dgates, _ = launch[1](zero, one, torch.cat([zero[0], x, zero[0], zero[0]])[None], one)
    right = x.double().sigmoid() * (-x.double()).sigmoid()
    assert ((dgates[0, 7:14] - right).abs() <= 8 * torch.finfo(torch.float32).eps * right).all()


def test_lstm_gates_infinite_and_nan_gates(launch):
    gates = torch.tensor([[INF] * 4, [-INF] * 4, [1e30] * 4, [0.0, NAN, 0.0, 0.0]], device=DEVICE)
    c = torch.ones(4, 1, device=DEVICE)
    for y in kernels(launch, c, c, gates, c):
        assert y[:3].isfinite().all()
        assert y[3].isnan().any()
    torch.testing.assert_close(launch[0](gates, c), reference.lstm_gates(gates, c), equal_nan=True)


@pytest.mark.skipif(INTERPRETED, reason="too large for the interpreter")
def test_lstm_gates_beyond_32_bit_offsets(launch):
    U = 1024
    B = 2**31 // (4 * U) + 1  # the last row starts at element 2^31 of gates and dgates
    last = inputs(1, U, torch.float16)
    arguments = [torch.zeros(B, x.shape[1], dtype=x.dtype, device=DEVICE) for x in last]
    for x, row in zip(arguments, last, strict=True):
        x[-1:] = row
    for all_rows, one_row in zip(kernels(launch, *arguments), kernels(launch, *last), strict=True):
        assert torch.equal(all_rows[-1:], one_row)
