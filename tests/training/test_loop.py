"""The loop: runs that are killed, stopped, out of disk or out of numbers, and what they leave."""

import json
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdraw.errors import FastdrawError
from fastdraw.training import Run, loop, resume, train
from fastdraw.training.checkpoint import read_checkpoint
from tests.training import warm
from tests.training.tiny import files, tiny, tiny_arguments


class Crash(BaseException):
    """The process ends here."""


def assert_same_end(actual: Path, expected: Path) -> None:
    tensors, others = (read_checkpoint(Run.open(folder).checkpoint_path) for folder in (expected, actual))
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name
    assert rows(actual) == rows(expected)


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "seconds"} for line in lines]


def test_bfloat16_trains_float32_weights_along_the_same_curve(tmp_path: Path) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        train(tiny(precision=precision), tmp_path / precision)
        losses[precision] = torch.tensor([row["loss"] for row in rows(tmp_path / precision) if row["split"] == "train"])
    torch.testing.assert_close(losses["bfloat16"], losses["float32"], rtol=1e-4, atol=0.0)
    assert not torch.equal(losses["bfloat16"], losses["float32"])
    tensors = read_checkpoint(Run.open(tmp_path / "bfloat16").checkpoint_path)
    assert not any(tensor.dtype == torch.bfloat16 for tensor in tensors.values())


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_crash_around_every_write_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: bool
) -> None:
    settings = tiny(steps=3, checkpoint_every=2)
    owner: Any = os if call == "fsync" else Path
    real, calls = getattr(owner, call), 0

    def crash_at(number: int) -> None:
        nonlocal calls
        calls = 0

        def patched(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and not after:
                raise Crash
            result = real(*args)
            if calls == number:
                raise Crash
            return result

        monkeypatch.setattr(owner, call, patched)

    crash_at(0)
    train(settings, tmp_path / "undisturbed")
    total = calls
    assert total >= 4
    for number in range(1, total + 1):
        folder = tmp_path / str(number)
        crash_at(number)
        with pytest.raises(Crash):
            train(settings, folder)
        crash_at(0)
        if (folder / "settings.json").exists():
            resume(folder)
        else:
            train(settings, folder)
        assert_same_end(folder, tmp_path / "undisturbed")
        assert not list(folder.glob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_ctrl_c_and_sigterm_write_a_checkpoint_and_say_how_to_go_on(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "run"
    arguments = ["train", *tiny_arguments(steps=100_000, checkpoint_every=100_000), "--out", str(folder)]
    process = warm.started(arguments, tmp_path / "said")
    warm.wait_for_step(folder, 7)
    os.kill(process.pid, number)
    assert warm.ended([process]) == [130]
    step = int(read_checkpoint(folder / "checkpoint.safetensors")["step"])
    assert step >= 7
    lines = (tmp_path / "said").read_text().splitlines()
    assert lines[-1] == f"fastdraw: stopped at step {step}: go on with fastdraw resume {folder}"
    assert rows(folder)[-1]["step"] == step


def test_resume_with_more_steps_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(tiny(steps=4), folder)
    old = files(folder)["checkpoint.safetensors"]
    resume(folder, steps=6)
    assert files(folder)["checkpoint.safetensors"] != old
    assert Run.open(folder).settings().steps == 6
    assert [row["step"] for row in rows(folder) if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(FastdrawError, match="is at step 6 already"):
        resume(folder, steps=5)


def test_resume_of_a_complete_run_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    train(tiny(steps=3), folder)
    before = files(folder)
    resume(folder)
    assert files(folder) == before
    assert "has taken all its 3 steps" in capsys.readouterr().out


def test_resume_drops_half_a_row_and_rows_after_the_checkpoint(tmp_path: Path) -> None:
    train(tiny(), tmp_path / "undisturbed")
    train(tiny(steps=4, optimiser__schedule="constant"), tmp_path / "constant")
    folder = tmp_path / "run"
    train(tiny(optimiser__schedule="constant"), folder)
    expected = rows(folder)
    checkpoint = (tmp_path / "constant" / "checkpoint.safetensors").read_bytes()
    (folder / "checkpoint.safetensors").write_bytes(checkpoint)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "spl')
    resume(folder)
    assert rows(folder) == expected


def test_training_lowers_the_test_bound_and_logs_both_splits(tmp_path: Path) -> None:
    train(tiny(steps=40, evaluate_every=20, test_batches=4, batch_size=16, data__lengths=(1, 0, 0, 0)), tmp_path)
    train_rows = [row for row in rows(tmp_path) if row["split"] == "train"]
    test_rows = [row for row in rows(tmp_path) if row["split"] == "test"]
    assert [row["step"] for row in train_rows] == list(range(1, 41))
    assert [row["step"] for row in test_rows] == [20, 40]
    assert all(row["loss"] == row["nll"] + row["kl"] for row in train_rows + test_rows)
    assert test_rows[1]["loss"] < test_rows[0]["loss"] - 0.1
    assert list((tmp_path / "tensorboard").iterdir())


def test_loss_that_is_not_finite_names_step_and_batch_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, saved = loop.mean_terms, {}

    def broken(objective: Any, batch: Any, noise: torch.Tensor) -> torch.Tensor:
        terms = real(objective, batch, noise)
        saved["steps"] = saved.get("steps", 0) + 1
        return terms * float("nan") if saved["steps"] == 7 else terms

    monkeypatch.setattr(loop, "mean_terms", broken)
    with pytest.raises(FastdrawError, match=r"at step 7, batch 6: not finite; the last checkpoint is kept"):
        train(tiny(), tmp_path)
    tensors = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert tensors["step"] == 4
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def multiplied(monkeypatch: pytest.MonkeyPatch, factor: float, after: int) -> None:
    """The loss is `factor` times what it should be at every step after the given one of this process."""
    real, calls = loop.mean_terms, 0

    def terms(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(*args) * (factor if calls > after else 1.0)

    monkeypatch.setattr(loop, "mean_terms", terms)


LONG = {"steps": 120, "checkpoint_every": 8, "evaluate_every": 1000, "data__lengths": (1, 0, 0, 0)}


def test_exploding_loss_names_step_and_batch_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        multiplied(patch, 20.0, 108)
        with pytest.raises(
            FastdrawError,
            match=r"^loss [0-9.]+ at step 109, batch 108: more than 10 times [0-9.]+, the median size of the 100 steps "
            r"before; the last checkpoint is kept, try a lower --optimiser.lr, or a higher --explode",
        ):
            train(tiny(**LONG), tmp_path)
    assert len([row for row in rows(tmp_path) if row["split"] == "train"]) == 108
    assert read_checkpoint(tmp_path / "checkpoint.safetensors")["step"] == 104
    # The median survives the stop: it is of steps before it, too.
    multiplied(monkeypatch, 20.0, 5)
    with pytest.raises(FastdrawError, match="at step 110, batch 109: more than 10 times"):
        resume(tmp_path)


def test_weights_that_explode_stop_the_run_before_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.learning_rate
    monkeypatch.setattr(loop, "learning_rate", lambda *args: 100.0 if args[1] >= 105 else real(*args))
    with pytest.raises(FastdrawError, match=r"at step 1\d\d, batch 1\d\d: (more than 10 times|not finite)"):
        train(tiny(**LONG), tmp_path)
    tensors = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert tensors["step"] == 104
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_loss_may_jump_before_there_are_100_steps_of_a_stage_and_up_to_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        multiplied(patch, 20.0, 95)
        train(tiny(**LONG | {"steps": 99}), tmp_path / "early")
    stages = {"data__lengths": (1, 1, 0, 0), "curriculum__kind": "cumulative"}  # the second one starts at step 60
    for name, settings in {"allowed": {"explode": 30.0}, "next-stage": stages}.items():
        with monkeypatch.context() as patch:
            multiplied(patch, 20.0, 108)
            train(tiny(**LONG | settings), tmp_path / name)


def test_losses_may_fall_through_zero_where_their_median_is_of_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, losses = loop.mean_terms, iter([*range(500, -500, -10), 400.0, 10_000.0])

    def terms(*args: Any) -> Any:
        found = real(*args)
        return 0 * found + next(losses) / len(found)

    monkeypatch.setattr(loop, "mean_terms", terms)
    with pytest.raises(FastdrawError, match=r"^loss 10000 at step 102, .* more than 10 times 250, the median size"):
        train(tiny(**LONG), tmp_path)


@pytest.mark.parametrize("limit", [300, 1500, 100_000], ids=["settings", "metrics", "checkpoint"])
def test_full_disk_leaves_the_old_files_whole(tmp_path: Path, limit: int) -> None:
    folder = tmp_path / "run"
    train(tiny(steps=4), folder)
    before = files(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(FastdrawError, match=r"^cannot write [^\n]*File too large[^\n]*$"):
            resume(folder, steps=40)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = files(folder)
    assert after["checkpoint.safetensors"] == before["checkpoint.safetensors"]
    assert not [name for name in after if name.startswith(".")]
    resume(folder, steps=5)
    assert [row["step"] for row in rows(folder) if row["split"] == "train"] == [1, 2, 3, 4, 5]
