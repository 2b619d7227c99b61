"""The choice of a backend, and the words when there is none."""

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fastdraw
from fastdraw import defaults, dispatch, info, kernels, ops
from fastdraw.errors import FastdrawError

GATES = torch.zeros(1, 4), torch.zeros(1, 1)


ON_GPU_ALONE = pytest.mark.skipif(dispatch.emulated, reason="the emulation takes CPU tensors")


@ON_GPU_ALONE
def test_a_backend_that_cannot_run_says_why() -> None:
    with (
        fastdraw.backend("cuda"),
        pytest.raises(dispatch.BackendError, match=r"^lstm_gates: the backend 'cuda' was asked for"),
    ):
        ops.lstm_gates(*GATES)
    zero = torch.zeros(1, 1)
    with (
        fastdraw.backend("cuda"),
        pytest.raises(dispatch.BackendError, match=r"^lstm_step: the backend 'cuda' was asked for"),
    ):
        ops.lstm_step(zero, (zero, zero), *[torch.zeros(4, 1)] * 2)
    assert dispatch.refusal("cuda", "gaussian_kl", {"cpu"}, "cuda", "float32") == "gaussian_kl has no cuda kernel"


def test_an_unknown_backend_is_an_error() -> None:
    with (
        pytest.raises(ValueError, match=r"^backend must be one of cuda, triton, cpu, reference, got 'gpu'$"),
        fastdraw.backend("gpu"),
    ):
        pass


@ON_GPU_ALONE
def test_the_block_ends_also_by_an_exception() -> None:
    before = dispatch.forced()
    with fastdraw.backend("reference"):
        assert dispatch.forced() == "reference"
    with pytest.raises(dispatch.BackendError), fastdraw.backend("reference"), fastdraw.backend("cuda"):
        ops.lstm_gates(*GATES)
    assert dispatch.forced() == before


@pytest.mark.usefixtures("own_choice")
def test_blocks_of_threads_may_end_in_any_order() -> None:
    first, second = fastdraw.backend("reference"), fastdraw.backend("cpu")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert dispatch.forced() == "cpu"
    second.__exit__(None, None, None)
    assert dispatch.forced() is None


def test_refusal_never_raises() -> None:
    for name in dispatch.BACKENDS:
        for device in ("cpu", "cuda", "mps", "meta"):
            for dtype in ("float32", "bfloat16", "int8"):
                reason = dispatch.refusal(name, "op", {"cuda", "triton", "cpu"}, device, dtype)
                assert reason is None or reason


@pytest.mark.usefixtures("own_choice")
def test_a_device_without_kernels_gets_the_reference() -> None:
    assert dispatch.choose("lstm_gates", {"cuda", "triton", "cpu"}, "meta", "float32") == "reference"
    assert dispatch.choose("lstm_gates", {"cuda", "triton"}, "cpu", "float32") == "reference"


def test_every_table_entry_has_known_backends() -> None:
    for op in ops.TABLE:
        assert op.backends <= set(dispatch.BACKENDS)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("reference", "reference"),
        pytest.param("cuda", "lstm_gates: the backend 'cuda' was asked for", marks=ON_GPU_ALONE),
        ("fast", "backend must be one of"),
    ],
)
def test_the_environment_variable_forces_a_backend(value: str, words: str) -> None:
    script = (
        "import torch; from fastdraw import dispatch, ops; "
        "ops.lstm_gates(torch.zeros(1, 4), torch.zeros(1, 1)); print(dispatch.forced())"
    )
    environment = {**os.environ, "FASTDRAW_BACKEND": value}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert words in (done.stdout if value == "reference" else done.stderr)
    assert (done.returncode == 0) == (value == "reference")


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Two GPUs in words: cuda:0 is too old for Triton, cuda:1 is not; the list has every question about one."""
    names, capabilities, asked = ("Tesla T4", "NVIDIA A100"), ((7, 5), (8, 0)), []

    def capability(index: int) -> tuple[int, int]:
        asked.append(index)
        return capabilities[index]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", names.__getitem__)
    kernels.reason.cache_clear()
    yield asked
    kernels.reason.cache_clear()


@pytest.mark.usefixtures("own_choice")
def test_triton_refuses_an_old_gpu_by_name(gpus: list[int]) -> None:
    refuse = functools.partial(dispatch.refusal, "triton", "lstm_gates", {"triton"}, "cuda", "float32")
    why = refuse(0)
    assert why is not None
    for word in ("Tesla T4", "7.5", "8.0 (sm_80) or newer", "'reference'"):
        assert word in why
    assert refuse(0) == why
    assert refuse(1) is None
    assert gpus == [0, 1]
    assert dispatch.choose("lstm_gates", {"triton"}, "cuda", "float32", 0) == "reference"
    assert dispatch.choose("lstm_gates", {"triton"}, "cuda", "float32", 1) == "triton"


def test_triton_leaves_amd_to_triton(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert dispatch.refusal("triton", "lstm_gates", {"triton"}, "cuda", "float32", 0) is None
    assert gpus == []


def test_triton_without_a_gpu_lets_fake_tensors_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    kernels.reason.cache_clear()
    assert dispatch.refusal("triton", "lstm_gates", {"triton"}, "cuda", "float32", 0) is None
    kernels.reason.cache_clear()


def test_triton_refuses_other_devices() -> None:
    why = dispatch.refusal("triton", "lstm_gates", {"triton"}, "mps", "float32")
    assert why is not None
    assert why.endswith("got mps")


def test_the_compiler_takes_the_answer_of_a_device_as_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def reason(device: str, index: int | None) -> str | None:
        asked.append(index)
        return os.environ.get("NOT_TO_BE_TRACED", f"{device} {torch.rand(1).item():.0f}")

    def chosen(x: torch.Tensor) -> torch.Tensor:
        why = dispatch.refusal("triton", "lstm_gates", {"triton"}, "cuda", "float32", 0)
        return x if why is None else -x

    monkeypatch.setattr(dispatch, "reason", reason)
    compiled = torch.compile(chosen, fullgraph=True, backend="eager")
    one = torch.ones(1)
    assert torch.equal(compiled(one), -one)
    assert torch.equal(compiled(one), -one)
    assert asked == [0]


def test_importing_asks_no_device() -> None:
    script = (
        "import torch\n"
        "def fail(*arguments): raise AssertionError('asked')\n"
        "for name in ('is_available', 'device_count', 'get_device_capability', 'init', '_lazy_init'):\n"
        "    setattr(torch.cuda, name, fail)\n"
        "import fastdraw, sys\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# lstm_gates in CUDA C++ was faster on an A100, from a batch of 16 on.
MEASURED = (
    defaults.Row("lstm_gates", "float32", 0, 15, "triton", 0.9, "NVIDIA A100", "8.0", "abc"),
    defaults.Row("lstm_gates", "float32", 16, None, "cuda", 1.5, "NVIDIA A100", "8.0", "abc"),
)


@pytest.fixture
def measured(gpus: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(defaults, "table", lambda: MEASURED)
    monkeypatch.setattr(dispatch, "cuda_refusal", None)
    monkeypatch.setattr(dispatch, "extension_refusal", None)
    defaults.rows.cache_clear()
    yield
    defaults.rows.cache_clear()


@pytest.mark.usefixtures("own_choice", "measured")
def test_measurements_decide_on_the_gpu_that_they_are_of(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = functools.partial(dispatch.choose, "lstm_gates", {"cuda", "triton"}, "cuda", "float32")
    assert choose(1, dispatch.Work("float32", 15)) == "triton"
    assert choose(1, dispatch.Work("float32", 16)) == "cuda"
    assert choose(1, dispatch.Work("bfloat16", 16)) == "triton"
    assert choose(0, dispatch.Work("float32", 16)) == "cuda"  # a T4, on which Triton cannot run
    assert defaults.rows("lstm_gates", 0) == ()
    assert defaults.rows("lstm_step", 1) == ()
    assert dispatch.choose("lstm_gates", {"triton"}, "cuda", "float32", 1, dispatch.Work("float32", 16)) == "triton"
    monkeypatch.setattr(dispatch, "cuda_refusal", "no CUDA")
    assert choose(1, dispatch.Work("float32", 16)) == "triton"


@pytest.mark.usefixtures("own_choice")
def test_the_compiler_takes_measurements_as_constants_and_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "rows", lambda op, index: MEASURED if torch.rand(1).item() < 1 else ())
    monkeypatch.setattr(dispatch, "cuda_refusal", None)
    monkeypatch.setattr(dispatch, "extension_refusal", None)

    def chosen(x: torch.Tensor) -> torch.Tensor:
        work = dispatch.Work("float32", x.shape[0])
        name = dispatch.preferred("lstm_gates", {"cuda", "triton"}, "cuda", "float32", 1, work)
        return x if name == "cuda" else -x

    compiled = torch.compile(chosen, fullgraph=True, backend="eager", dynamic=True)
    for batch, sign in ((2, -1), (15, -1), (16, 1), (40, 1), (3, -1)):
        assert torch.equal(compiled(torch.ones(batch)), sign * torch.ones(batch))


@pytest.mark.usefixtures("own_choice")
def test_what_measurements_tell_rollouts_apart_by() -> None:
    noise = torch.zeros(5, 3, 2)
    work = ops.TABLE[-1].native.work
    assert work(noise) == ("float32", 3)
    assert work(noise.half()) == ("float16", 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert work(noise) == ("bfloat16", 3)


@pytest.mark.usefixtures("own_choice", "measured")
def test_info_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: (8, 0))
    text = "\n".join(info._backends())
    assert (
        "lstm_gates           triton where no row below says otherwise\n    triton for float32 and a batch of 0 to 15"
        in text
    )
    assert "cuda for float32 and a batch of 16 or more: measured on NVIDIA A100, cuda is 1.50 x as fast" in text
    assert "  gaussian_kl          triton, not yet measured on a GPU: the safe choice\n" in text


@pytest.mark.parametrize("text", ["", "{", "[{}]", "[1]"])
def test_a_broken_table_of_measurements_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "defaults.json"
    broken.write_text(text)
    monkeypatch.setattr(defaults, "FILE", broken)
    with pytest.raises(FastdrawError, match=f"{broken}, a part of fastdraw, is broken"):
        defaults.table.__wrapped__()


def test_the_table_of_measurements_can_be_read() -> None:
    for row in defaults.table():
        assert row.backend in ("cuda", "triton")
        assert row.op in {op.name for op in ops.TABLE}
