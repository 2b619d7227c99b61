"""The tuner on a GPU that is there in words only, and the file that it writes."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdraw import dispatch, info, kernels, ops, tune
from fastdraw.errors import FastdrawError
from fastdraw.kernels import configs
from fastdraw.published import Call

GPU = "NVIDIA H200"
CUDA = torch.device("cuda", 0)
TABLE = {"lstm_gates": {"TILE": 512, "num_warps": 4, "num_stages": 2}, "latent": {"TILE": 256, "num_warps": 2}}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the tuned file of the test is, on a machine with a GPU in words."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(configs, "TABLE", {"sm_80": TABLE, "sm_90": TABLE})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: GPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    configs.forget_tuned()
    yield tmp_path / "fastdraw" / "configs.json"
    configs.forget_tuned()


@pytest.fixture
def bench(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """A GPU whose best is TILE 2048, 1 warp, 2 stages, and on which TILE 4096 fails; the list has what was tried."""
    tried = []

    def measure(call: Call) -> float:
        launch = configs.config(call.function.__name__.replace("sample_kl", "latent"), CUDA)
        tried.append(launch)
        if launch["TILE"] > 2048:
            pytest.importorskip("triton")
            from triton.errors import TritonError

            raise TritonError("out of resource: shared memory")
        return 1 + abs(math.log2(launch["TILE"]) - 11) + launch["num_warps"] + abs(launch.get("num_stages", 2) - 2)

    def users(table: Any, device: torch.device) -> dict[str, list[str]]:
        return {"lstm_gates": ["lstm_gates"], "latent": ["sample_kl"]}

    monkeypatch.setattr(tune, "_gpu", lambda: CUDA)
    monkeypatch.setattr(tune, "_users", users)
    monkeypatch.setattr(tune, "measure", measure)
    monkeypatch.setattr(tune, "Call", lambda op, dtype, device: Call(op, dtype, torch.device("cpu")))
    return tried


def test_the_best_is_found_kept_and_used(path: Path, bench: list[dict[str, int]]) -> None:
    found = tune.tune()
    best = {"TILE": 2048, "num_warps": 1, "num_stages": 2}
    assert [(result.name, result.best) for result in found] == [
        ("lstm_gates", best),
        ("latent", {"TILE": 2048, "num_warps": 1}),
    ]
    assert str(found[0]) == "lstm_gates   3.50 x  TILE 512 -> 2048, num_warps 4 -> 1"
    assert json.loads(path.read_text()) == {GPU: {result.name: result.best for result in found}}
    assert configs.config("lstm_gates", CUDA) == {**best, "enable_fp_fusion": True}


def test_a_second_run_starts_from_the_first(path: Path, bench: list[dict[str, int]]) -> None:
    tune.tune()
    bench.clear()
    results = tune.tune()
    assert all(result.best == result.before for result in results)
    assert "as it was" in str(results[0])
    assert bench[0]["TILE"] == 2048


def test_what_is_in_the_file_stays(path: Path, bench: list[dict[str, int]]) -> None:
    path.parent.mkdir()
    others = {"NVIDIA A100": {"latent": {"TILE": 64}}}
    path.write_text(json.dumps(others))
    tune.tune()
    kept = json.loads(path.read_text())
    assert kept.keys() == {GPU, *others}
    assert kept["NVIDIA A100"] == others["NVIDIA A100"]


def test_a_stop_keeps_what_is_done(path: Path, bench: list[dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    measure = tune.measure

    def stop(call: Call) -> float:
        if call.function is ops.sample_kl:
            raise KeyboardInterrupt
        return measure(call)

    monkeypatch.setattr(tune, "measure", stop)
    with pytest.raises(KeyboardInterrupt):
        tune.tune()
    assert json.loads(path.read_text())[GPU].keys() == {"lstm_gates"}


def test_table_is_used_where_nothing_was_tuned(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({"NVIDIA A100": {"latent": {"TILE": 64}}, GPU: {"latent": {"num_warps": 8}}}))
    assert configs.config("lstm_gates", CUDA) == {**TABLE["lstm_gates"], "enable_fp_fusion": True}
    assert configs.config("latent", CUDA) == {"TILE": 256, "num_warps": 8, "enable_fp_fusion": True}
    assert configs.config("latent", torch.device("cpu"))["num_warps"] == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting property name"),
        ("\udcff", "utf-8"),
        ("[]", "the file must hold an object, got list"),
        ('{"X": 3}', "X must hold an object, got int"),
        ('{"X": {"latent": 3}}', "X: latent must hold an object, got int"),
        ('{"X": {"later": {}}}', "X: there are no kernels 'later'"),
        ('{"X": {"latent": {"WIDTH": 3}}}', "X: latent: there is no 'WIDTH', only TILE, num_warps"),
        ('{"X": {"latent": {"TILE": 0}}}', "TILE must be a positive integer, got 0"),
        ('{"X": {"latent": {"TILE": true}}}', "TILE must be a positive integer, got True"),
        ('{"X": {"latent": {"TILE": "64"}}}', "TILE must be a positive integer, got '64'"),
        ('{"X": {"latent": {"TILE": 96}}}', "TILE must be a power of two, got 96"),
    ],
)
def test_a_broken_file_is_said_to_be_one(path: Path, text: str, words: str) -> None:
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(FastdrawError) as caught:
        configs.config("latent", CUDA)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "delete it" in str(caught.value)
    assert words in info.report()


def test_stages_may_be_any_number(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(json.dumps({GPU: {"lstm_gates": {"num_stages": 3}}}))
    assert configs.config("lstm_gates", CUDA)["num_stages"] == 3


def test_info_says_whether_the_file_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert f"none; on a GPU, `python -m fastdraw.tune` writes {path}" in info.report()
    path.parent.mkdir()
    path.write_text(json.dumps({"NVIDIA A100": {}}))
    assert f"{path}, not used: for other GPUs, NVIDIA A100" in info.report()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_one_line_without_a_gpu(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "fastdraw.tune"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("fastdraw: error: tuning needs a GPU")
    assert len(done.stderr.splitlines()) == 1


def test_a_gpu_that_triton_cannot_use_is_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(kernels, "reason", lambda device, index: "Tesla T4 is too old")
    with pytest.raises(FastdrawError, match=r"^nothing can be tuned: Tesla T4 is too old$"):
        tune.tune()


def test_every_entry_of_the_table_has_ops_to_be_tuned_by(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = pytest.importorskip("fastdraw.kernels.recording")
    monkeypatch.setattr(dispatch, "backend", lambda name: recording.recorded(recording.target("sm_90"), lambda _: None))
    users = tune._users(configs.of("sm_90"), torch.device("cpu"))
    assert users.keys() == configs.of("sm_90").keys()
    assert users["lstm_step"] == ["lstm_step"]
