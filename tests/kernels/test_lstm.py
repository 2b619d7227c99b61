"""The LSTM kernels, called without the op layer: on a GPU as they are, else in Triton's interpreter or emulated.

`make test` runs this file with TRITON_INTERPRET=1 and with FASTDRAW_EMULATED.
"""

import os

import pytest
import torch

from fastdraw import dispatch, reference
from fastdraw.kernels import lstm
from fastdraw.ops.op import NAMESPACES

from ..ops.checking import FLOAT64_FACTOR, assert_accurate, max_error

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED or dispatch.emulated else "cuda"
FLOORS = [*(["cuda"] if dispatch.emulated or not INTERPRETED else []), *(["triton"] if not dispatch.emulated else [])]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
# Around the 512 samples of a one-unit tile and the 8 x 64 of a wide one; 400 is paper 000's size.
SIZES = [(0, 5), (1, 1), (511, 1), (512, 1), (513, 1), (7, 64), (8, 63), (9, 65), (3, 129), (5, 400)]
# B, I, U around the 32 samples x 16 units of a tile, and the 16, 32 or 64 columns of a step of its products.
STEP_SIZES = [(0, 3, 5), (3, 0, 5), (1, 1, 1), (31, 64, 15), (32, 63, 16), (33, 65, 17), (5, 528, 400)]
INF, NAN = float("inf"), float("nan")

OF_TRITON = pytest.mark.skipif("triton" not in FLOORS, reason="a kernel of Triton's alone")
if DEVICE == "cuda":
    pytestmark = [
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, and neither kind of emulation"),
    ]


@pytest.fixture(params=FLOORS)
def launch(request):
    """The pair (forward, backward) of a floor."""
    if request.param == "triton":
        return lstm.lstm_gates, lstm.lstm_gates_bwd
    library = getattr(torch.ops, NAMESPACES["cuda"])
    return library.lstm_gates, library.lstm_gates_bwd


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


@pytest.mark.skipif(DEVICE == "cpu", reason="too large for emulation")
def test_lstm_gates_beyond_32_bit_offsets(launch):
    U = 1024
    B = 2**31 // (4 * U) + 1  # the last row starts at element 2^31 of gates and dgates
    last = inputs(1, U, torch.float16)
    arguments = [torch.zeros(B, x.shape[1], dtype=x.dtype, device=DEVICE) for x in last]
    for x, row in zip(arguments, last, strict=True):
        x[-1:] = row
    for all_rows, one_row in zip(kernels(launch, *arguments), kernels(launch, *last), strict=True):
        assert torch.equal(all_rows[-1:], one_row)


def step_inputs(B, width, U, dtype):
    """dh', dc', input, h, c, w_ih, w_hh, b_ih, b_hh."""
    generator = torch.Generator().manual_seed(B * 1000 + U)
    shapes = (B, U), (B, U), (B, width), (B, U), (B, U), (4 * U, width), (4 * U, U), (4 * U,), (4 * U,)
    scales = 1, 1, 1, 1, 1, max(width, 1) ** -0.5, U**-0.5, 1, 1
    made = [scale * torch.randn(shape, generator=generator) for shape, scale in zip(shapes, scales, strict=True)]
    return [x.to(DEVICE, dtype) for x in made]


def eager_step(dh, dc_next, *tensors):
    """h', c' and all gradients from plain PyTorch, the bias's once."""
    leaves = [x.detach().requires_grad_() for x in tensors]
    input, h, c, *weights = leaves
    outputs = reference.lstm_step(input, (h, c), *weights)
    return [*outputs, *torch.autograd.grad(outputs, leaves[:-1], (dh, dc_next))]


def step_kernels(dh, dc_next, *tensors):
    *outputs, gates = lstm.lstm_step(*tensors, True)
    return [*outputs, *lstm.lstm_step_bwd(dh, dc_next, gates, *tensors, *[True] * 5)]


def assert_step_close(*arguments):
    dtype = arguments[0].dtype
    exact, plain = eager_step(*(x.double() for x in arguments)), eager_step(*arguments)
    errors = [max_error(y, right) for y, right in zip(plain, exact, strict=True)]
    if dtype == torch.float64:  # which is held against itself: both are off, and how far is guessed from float32
        plain = eager_step(*(x.float() for x in arguments))
        finer = FLOAT64_FACTOR / 2 * torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
        errors = [finer * max_error(y, right) for y, right in zip(plain, exact, strict=True)]
    names = "h", "c_next", "dinput", "dh", "dc", "dw_ih", "dw_hh", "dbias"
    for name, y, right, error in zip(names, step_kernels(*arguments), exact, errors, strict=True):
        assert y.dtype == dtype, name
        assert y.is_contiguous(), name
        assert_accurate(name, y, right, error)


# The interpreter multiplies the bits of bfloat16 as if they were integers.
@OF_TRITON
@pytest.mark.parametrize(
    "dtype",
    [dtype for dtype in DTYPES if not INTERPRETED or dtype != torch.bfloat16],
    ids=lambda dtype: str(dtype).removeprefix("torch."),
)
@pytest.mark.parametrize("size", STEP_SIZES, ids=str)
def test_lstm_step_matches_reference(size, dtype):
    assert_step_close(*step_inputs(*size, dtype))


@OF_TRITON
def test_lstm_step_transposed_and_repeated_inputs():
    dh, dc_next, input, h, c, *weights = step_inputs(9, 33, 12, torch.float32)
    one_row = [x[:1].expand_as(x) for x in (dh, input)]
    columns = [x.t().contiguous().t() if x.dim() == 2 else x.repeat_interleave(2)[::2] for x in (h, c, *weights)]
    assert_step_close(one_row[0], dc_next, one_row[1], *columns)


@OF_TRITON
def test_lstm_step_writes_gates_only_for_a_backward_pass():
    tensors = step_inputs(3, 5, 7, torch.float16)[2:]
    *expected, gates = lstm.lstm_step(*tensors, True)
    *actual, empty = lstm.lstm_step(*tensors, False)
    assert gates.shape == (3, 28)
    assert gates.dtype == torch.float32
    assert empty.shape == (0, 28)
    assert all(map(torch.equal, actual, expected))


@OF_TRITON
def test_lstm_step_leaves_out_what_is_not_needed():
    dh, dc_next, *tensors = step_inputs(3, 5, 7, torch.float32)
    gates = lstm.lstm_step(*tensors, True)[2]
    for wanted in range(5):
        needs = [k == wanted for k in range(5)]
        found = list(lstm.lstm_step_bwd(dh, dc_next, gates, *tensors, *needs))
        del found[2]  # dc, which is always there
        assert [dx.numel() > 0 for dx in found] == needs


@OF_TRITON
def test_bits_of_a_step_do_not_depend_on_the_batch():
    input, h, c, *weights = step_inputs(70, 33, 17, torch.float32)[2:]
    all_rows = lstm.lstm_step(input, h, c, *weights, True)
    for B in (1, 31, 32, 33):
        first_rows = lstm.lstm_step(input[:B], h[:B], c[:B], *weights, True)
        assert all(torch.equal(y[:B], rows) for y, rows in zip(all_rows, first_rows, strict=True))


@OF_TRITON
def test_nan_stays_in_its_sample():
    for place in range(3):
        tensors = step_inputs(4, 5, 7, torch.float32)[2:]
        expected = lstm.lstm_step(*tensors, False)[1]
        tensors[place][1] = NAN
        c_next = lstm.lstm_step(*tensors, False)[1]
        assert c_next[1].isnan().all()
        assert torch.equal(c_next[[0, 2, 3]], expected[[0, 2, 3]])


@OF_TRITON
def test_tf32_only_where_torch_allows_it(monkeypatch):
    launches = []

    class Recorded:
        def __getitem__(self, grid):
            return lambda *arguments, **options: launches.append(options["PRECISION"])

    monkeypatch.setattr(lstm, "lstm_step_fwd_kernel", Recorded())
    tensors = step_inputs(1, 1, 1, torch.float32)[2:]
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            lstm.lstm_step(*tensors, False)
    finally:
        torch.set_float32_matmul_precision(before)
    assert launches == ["ieee", "tf32"]


@OF_TRITON
@pytest.mark.skipif(DEVICE == "cpu", reason="too large for emulation")
def test_lstm_step_beyond_32_bit_offsets():
    U = 1024
    B = 2**31 // (4 * U) + 1  # the last row starts at element 2^31 of the gates that are kept
    input, h, c, *weights = step_inputs(1, 16, U, torch.float16)[2:]
    one_row = lstm.lstm_step(input, h, c, *weights, True)
    many = [torch.zeros(B, x.shape[1], dtype=x.dtype, device=DEVICE) for x in (input, h, c)]
    for x, row in zip(many, (input, h, c), strict=True):
        x[-1:] = row
    all_rows = lstm.lstm_step(*many, *weights, True)
    assert all(torch.equal(y[-1:], row) for y, row in zip(all_rows, one_row, strict=True))
