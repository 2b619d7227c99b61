"""Checkpoint files: whole, of this program, of this run, or refused in one line."""

from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from safetensors.torch import save_file

from fastdraw.errors import FastdrawError
from fastdraw.training import Run, load_model, train
from fastdraw.training.checkpoint import read_checkpoint, write_checkpoint
from fastdraw.training.state import TrainingState
from tests.training.tiny import tiny

TENSORS = {
    "weight": torch.arange(6.0).view(2, 3),
    "step": torch.tensor(3),
    "state": torch.tensor([7], dtype=torch.uint8),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(tiny(steps=2), folder)
    return Run.open(folder)


def test_checkpoint_returns_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, TENSORS, tiny())
    read = read_checkpoint(path)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 2**20), mask=st.integers(1, 255))
def test_flipped_bits_are_refused_or_change_nothing(tmp_path: Path, place: int, mask: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, TENSORS, tiny())
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= mask
    path.write_bytes(data)
    message = ""
    try:
        read = read_checkpoint(path)
    except FastdrawError as error:
        message = str(error)
    if message:
        assert str(path) in message
        assert "\n" not in message
    else:
        assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.9999])
def test_truncated_checkpoint_is_refused(run: Run, tmp_path: Path, share: float) -> None:
    data = run.checkpoint_path.read_bytes()
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(FastdrawError, match="damaged or no safetensors file"):
        read_checkpoint(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff" * 4096, bytes(4096)], ids=["empty", "text", "ones", "zeros"])
def test_bytes_that_are_no_safetensors_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(data)
    with pytest.raises(FastdrawError, match="damaged or no safetensors file"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no fastdraw checkpoint: its format tag is None"),
        ({"format": "pt"}, "no fastdraw checkpoint: its format tag is 'pt'"),
        ({"format": "fastdraw-checkpoint", "version": "99"}, "version 99, this fastdraw reads 2"),
        ({"format": "fastdraw-checkpoint", "version": "2"}, "checksum"),
    ],
    ids=["no-metadata", "foreign", "newer", "no-checksum"],
)
def test_foreign_safetensors_are_refused(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file(TENSORS, path, metadata)
    with pytest.raises(FastdrawError, match=message):
        read_checkpoint(path)


class Older(BaseModel):
    size: int = 1


class Newer(Older):
    colour: str = "grey"


def test_settings_are_compared_with_defaults_for_what_came_later(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, TENSORS, Older())
    assert read_checkpoint(path, Newer()).keys() == TENSORS.keys()
    for other in (Newer(size=2), Newer(colour="red")):
        with pytest.raises(FastdrawError, match="was written with other settings than those beside it"):
            read_checkpoint(path, other)


def test_missing_checkpoint_and_folder_in_its_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FastdrawError, match="is missing"):
        read_checkpoint(tmp_path / "checkpoint.safetensors")
    with pytest.raises(FastdrawError, match=r"cannot be read|damaged"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"model__hidden": 17}, r"is \(.*\) float32, expected \(.*\) float32"),
        ({"optimiser__ema": 0}, r"average\..* is not expected"),
    ],
    ids=["hidden", "no-average"],
)
def test_checkpoint_of_other_settings_leaves_the_state_alone(run: Run, other: dict[str, int], message: str) -> None:
    state = TrainingState(tiny(**other), torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    with pytest.raises(FastdrawError, match=message):
        state.restore(run.checkpoint_path)
    assert state.step == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in state.model.state_dict().items())


def test_restore_takes_over_every_tensor(run: Run) -> None:
    state = TrainingState(tiny(steps=2, seed=5), torch.device("cpu"))
    state.restore(run.checkpoint_path)
    assert state.step == 2
    expected, actual = read_checkpoint(run.checkpoint_path), state.tensors()
    assert actual.keys() == expected.keys()
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


def test_load_model_gives_the_averaged_weights_and_leaves_the_random_state(run: Run) -> None:
    random = torch.get_rng_state()
    model, settings = load_model(run.folder)
    assert torch.equal(torch.get_rng_state(), random)
    assert settings == run.settings()
    assert not model.training
    tensors = read_checkpoint(run.checkpoint_path)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, tensors[f"average.module.{name}"])
    assert any(
        not torch.equal(tensors[f"average.module.{name}"], tensors[f"model.{name}"]) for name in model.state_dict()
    )
