"""Launches are recorded as Triton would make them, and counted, on tensors of the CPU."""

import os
from collections import Counter

import pytest
import torch

from fastdraw.kernels import compile as kernels_compile
from fastdraw.kernels import configs, recording
from fastdraw.published import Call

triton = pytest.importorskip("triton")
tl = triton.language

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1", reason="in its interpreter Triton launches nothing"
)
CPU = torch.device("cpu")


@triton.jit
def adding_kernel(x_ptr, left_out_ptr, count, odd, BLOCK: tl.constexpr):
    tl.atomic_add(x_ptr + count, 1.0)
    tl.store(x_ptr + odd + tl.arange(0, BLOCK), 0.0)


def record(*arguments, **options):
    found = []
    with recording.recorded(recording.target("sm_80"), found.append):
        adding_kernel[(1,)](*arguments, **options, enable_fp_fusion=True)
    (launch,) = found
    return launch


def test_launch_is_recorded_as_triton_specialises_it():
    launch = record(torch.zeros(64, dtype=torch.bfloat16), None, 32, 7, BLOCK=16, num_warps=2)
    assert launch.kernel is adding_kernel
    assert list(launch.signature.values()) == ["*bf16", "constexpr", "i32", "i32", "constexpr"]
    assert launch.constants == {(1,): None, (4,): 16}
    divisible = [place for place, attributes in launch.attributes.items() if attributes == [["tt.divisibility", 16]]]
    assert divisible == [(0,), (2,)]
    assert launch.options["num_warps"] == 2
    assert launch.variant == "left_out_ptr None, BLOCK 16, num_warps 2, num_stages 3"


@pytest.mark.parametrize("arch", kernels_compile.ARCHS)
def test_float_atomics_are_found(arch):
    launch = record(torch.zeros(64), None, 32, 7, BLOCK=16)
    usage = kernels_compile.measure(launch, kernels_compile.build(launch, arch), "float32", arch)
    assert usage.float_atomics[0] == "atomic_rmw fadd"
    assert usage.float_atomics[1].endswith(".add.f32")


@pytest.fixture
def fresh_configs():
    configs.forget_tuned()
    yield
    configs.forget_tuned()


def test_architectures_choose_their_configurations(monkeypatch, fresh_configs):
    monkeypatch.setattr(configs, "TABLE", {f"sm_{n}": {"lstm_gates": {"TILE": n}} for n in (100, 80, 90)})
    for arch, tile in (("sm_70", 80), ("sm_80", 80), ("sm_86", 80), ("sm_90a", 90), ("sm_100", 100), ("sm_120", 100)):
        with configs.using(configs.of(arch)):
            assert configs.config("lstm_gates", CPU)["TILE"] == tile
    assert configs.config("lstm_gates", CPU)["TILE"] == 80
    launch = recording.launches("lstm_gates", torch.float32, "sm_100")[0]
    assert "BLOCK_U 64" in launch.variant


def test_nothing_runs_while_launches_are_recorded():
    call = Call("lstm_gates", torch.float32, CPU)
    found = []
    with recording.recorded(recording.target("sm_90"), found.append):
        assert all(y.isnan().all() for y in call.forward())  # what fresh memory is filled with
    assert [launch.kernel.__name__ for launch in found] == ["lstm_gates_fwd_kernel"]


@pytest.fixture
def torch_op():
    """An op of the namespace that is counted from inside."""
    library = torch.library.Library("fastdraw_triton", "FRAGMENT")

    def implementation(x):
        y = torch.nn.functional.linear(x, x.new_zeros(4, 4)).t().contiguous()
        adding_kernel[(1,)](y, None, 0, 0, BLOCK=16, enable_fp_fusion=True)
        return torch.mm(y, x)[1:]

    library.define("counted(Tensor x) -> Tensor")
    library.impl("counted", implementation, "CPU")
    yield torch.ops.fastdraw_triton.counted
    library._destroy()


def test_launches_are_counted_inside_ops(torch_op):
    x, counts = torch.zeros(4, 4), Counter()
    with recording.counted(counts):
        torch_op(x).view(-1)
    # Of torch's own kernels: zeros, and the copy that is contiguous.
    assert counts == {"triton": 1, "products": 2, "others": 2}
