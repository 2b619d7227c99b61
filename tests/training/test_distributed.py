"""Several processes, and a batch in parts: the same run as one process that takes the batch whole."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fastdraw.data import MultiDigits, load_cells
from fastdraw.errors import FastdrawError
from fastdraw.training import Run, loop, train
from fastdraw.training.bound import mean_terms
from fastdraw.training.checkpoint import read_checkpoint
from fastdraw.training.distributed import Group, joined, share
from fastdraw.training.state import TrainingState
from tests.training import warm
from tests.training.test_loop import rows
from tests.training.tiny import tiny, tiny_arguments

NAMES = ("loss", "nll", "kl", "grad_norm")


def assert_same_curve(actual: Path, expected: Path, rtol: float = 1e-5) -> None:
    """The same losses and gradient norms at the same steps, and the same weights, within rounding."""
    ours, theirs = rows(actual), rows(expected)
    assert [(row["step"], row["split"]) for row in ours] == [(row["step"], row["split"]) for row in theirs]
    for our, their in zip(ours, theirs, strict=True):
        measured = [name for name in NAMES if their[name] is not None]
        assert [our[name] for name in measured] == pytest.approx([their[name] for name in measured], rel=rtol), our
    tensors, others = (read_checkpoint(Run.open(folder).checkpoint_path) for folder in (actual, expected))
    for name, tensor in others.items():
        if name.startswith(("model.", "average.")):
            torch.testing.assert_close(tensors[name], tensor, rtol=1e-3, atol=1e-5)


def run_group(size: int, arguments: list[str], outputs: Path, first: Callable[[], None] | None = None) -> list[str]:
    """What each process has said; all must end well."""
    processes, _store = warm.started_group(size, arguments, outputs, first)
    codes = warm.ended(processes)
    texts = [(outputs / str(rank)).read_text() for rank in range(size)]
    assert codes == [0] * size, texts
    return texts


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"accumulate": 2},
        {"precision": "bfloat16"},
        {"data.lengths": (1, 1, 1, 1), "accumulate": 2},
        {"curriculum.kind": "cumulative", "samples": 2, "model.labels": "last"},
    ],
    ids=["float32", "accumulated", "bfloat16", "four-lengths-accumulated", "curriculum-samples-rnndraw"],
)
def test_two_processes_train_as_one(tmp_path: Path, overrides: dict[str, Any]) -> None:
    one = {name.replace(".", "__"): value for name, value in overrides.items() if name != "accumulate"}
    train(tiny(**one), tmp_path / "one")
    said = run_group(2, ["train", *tiny_arguments(**overrides), "--out", str(tmp_path / "two")], tmp_path / "said")
    # A product of bfloat16 rounds as its rows are; what it rounds is the same.
    assert_same_curve(tmp_path / "two", tmp_path / "one", 1e-4 if "precision" in overrides else 1e-5)
    assert len(re.findall("^settings: ", said[0], re.M)) == 1
    assert said[1] == ""


@pytest.mark.parametrize("accumulate", [2, 4])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_batch_in_parts_is_the_whole_batch(tmp_path: Path, accumulate: int, precision: str) -> None:
    train(tiny(precision=precision), tmp_path / "whole")
    train(tiny(precision=precision, accumulate=accumulate), tmp_path / "parts")
    assert_same_curve(tmp_path / "parts", tmp_path / "whole", 1e-4 if precision == "bfloat16" else 1e-5)


def test_shares_of_a_batch_of_mixed_lengths_add_up_to_its_gradient() -> None:
    settings = tiny(data__lengths=(1, 1, 1, 1))
    objective = TrainingState(settings, torch.device("cpu")).objective
    batch = MultiDigits(load_cells(None, "train"), settings.data.lengths, 12, 0).mixed_batch(0)
    assert len(batch.lengths.unique()) > 2
    noise = objective.model.noise(12, batch[1].shape[1], torch.Generator().manual_seed(0))

    def gradient(shares: int) -> list[torch.Tensor]:
        objective.zero_grad()
        for index in range(shares):
            (mean_terms(objective, *share(batch, noise, index, shares)).sum() / shares).backward()
        return [parameter.grad for parameter in objective.parameters()]

    whole = gradient(1)
    for shares in (2, 3, 12):
        for actual, expected in zip(gradient(shares), whole, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_four_processes_resume_bit_for_bit(tmp_path: Path) -> None:
    settings = {"batch_size": 8, "model.hidden": 32, "steps": 6, "optimiser.schedule": "constant"}
    run_group(4, ["train", *tiny_arguments(**settings), "--out", str(tmp_path / "whole")], tmp_path / "said")
    first = ["train", *tiny_arguments(**settings | {"steps": 3}), "--out", str(tmp_path / "stopped")]
    run_group(4, first, tmp_path / "first")
    # The last step of a run is tested, which those that go on do not do there.
    said = run_group(4, ["resume", str(tmp_path / "stopped"), "--steps", "6"], tmp_path / "second")
    assert "note:" not in "".join(said)
    assert_same_tensors(tmp_path / "stopped", tmp_path / "whole")


def assert_same_tensors(actual: Path, expected: Path) -> None:
    tensors, others = (read_checkpoint(Run.open(folder).checkpoint_path) for folder in (actual, expected))
    assert [name for name in others if not torch.equal(tensors[name], others[name])] == []


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_resume_with_another_number_of_processes_is_the_same_run_but_for_rounding(
    tmp_path: Path, before: int, after: int
) -> None:
    constant = {"optimiser.schedule": "constant", "evaluate_every": 4}
    train(tiny(optimiser__schedule="constant", evaluate_every=4), tmp_path / "one")
    arguments = ["train", *tiny_arguments(steps=8, **constant), "--out", str(tmp_path / "changed")]
    run_group(before, arguments, tmp_path / "before")
    said = run_group(after, ["resume", str(tmp_path / "changed"), "--steps", "12"], tmp_path / "after")
    note = f"note: {before} processes trained up to here, now {after}: the same run, but for the order in which sums"
    assert [note in text for text in said] == [True, False][:after]
    assert_same_curve(tmp_path / "changed", tmp_path / "one")


def test_torchrun_trains_stops_at_sigterm_and_resumes(tmp_path: Path) -> None:
    """The one test through torchrun itself, whose agent passes the signal on to its processes."""
    folder = tmp_path / "run"
    arguments = tiny_arguments(steps=100_000, checkpoint_every=100_000, **{"optimiser.schedule": "constant"})
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "fastdraw.cli"]
    process = subprocess.Popen(
        [*command, "train", *arguments, "--out", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        warm.wait_for_step(folder, 7)
        process.terminate()
        _, message = process.communicate(timeout=warm.WAIT)
    finally:
        process.kill()
    step = int(read_checkpoint(folder / "checkpoint.safetensors")["step"])
    assert step >= 7
    assert message.count("fastdraw: ") == 1, message
    assert f"fastdraw: stopped at step {step}: go on with fastdraw resume {folder}\n" in message
    run_group(2, ["resume", str(folder), "--steps", str(step + 2)], tmp_path / "said")
    assert rows(folder)[-1]["step"] == step + 2


@pytest.mark.parametrize("rank", [0, 1])
def test_signal_to_one_process_stops_all_after_the_same_step(tmp_path: Path, rank: int) -> None:
    folder = tmp_path / "run"
    arguments = ["train", *tiny_arguments(steps=100_000, checkpoint_every=100_000), "--out", str(folder)]
    processes, _store = warm.started_group(2, arguments, tmp_path / "said")
    warm.wait_for_step(folder, 7)
    os.kill(processes[rank].pid, signal.SIGTERM)
    assert warm.ended(processes) == [130, 130]
    step = int(read_checkpoint(folder / "checkpoint.safetensors")["step"])
    assert rows(folder)[-1]["step"] == step
    assert f"fastdraw: stopped at step {step}: " in (tmp_path / "said" / "0").read_text()
    assert (tmp_path / "said" / "1").read_text() == ""


def break_step_7() -> None:
    """The loss of the second process is not a number, once; it is so for all, as they share the mean."""
    break_rank(lambda terms: terms * float("nan"))


def fail_step_7() -> None:
    """The second process fails alone, in the middle of a step."""

    def fail(terms: torch.Tensor) -> torch.Tensor:
        raise FastdrawError("this process is out of luck")

    break_rank(fail)


def vanish_at_step_7() -> None:
    """The second process is killed."""

    def vanish(terms: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return terms

    break_rank(vanish)


def break_rank(broken: Callable[[torch.Tensor], torch.Tensor]) -> None:
    real, calls = loop.mean_terms, 0

    def terms(*args: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        # One call comes before the first step.
        return broken(real(*args)) if calls == 8 and os.environ["RANK"] == "1" else real(*args)

    loop.mean_terms = terms


def fail_the_second_checkpoint() -> None:
    """The disk of the first process is full."""
    real, calls = loop.write_checkpoint, 0

    def write(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise FastdrawError("cannot write: no space left on device")
        real(*args)

    loop.write_checkpoint = write


@pytest.mark.parametrize(
    ("first", "codes", "teller", "message"),
    [
        (break_step_7, [1, 1], 0, "NLL nan, KL nan, gradient norm nan at step 7, batch 6: not finite; the last check"),
        (fail_step_7, [1, 1], 1, "this process is out of luck"),
        (vanish_at_step_7, [1, -signal.SIGKILL], 0, "another process of this run has ended or does not answer"),
        (fail_the_second_checkpoint, [1, 1], 0, "cannot write: no space left on device"),
    ],
    ids=["nan", "error", "killed", "full-disk"],
)
def test_failure_of_one_process_ends_all_with_one_line(
    tmp_path: Path, first: Callable[[], None], codes: list[int], teller: int, message: str
) -> None:
    arguments = ["train", *tiny_arguments(), "--out", str(tmp_path / "run")]
    processes, _store = warm.started_group(2, arguments, tmp_path / "said", first)
    assert warm.ended(processes) == codes
    said = [re.findall("^fastdraw: .*", (tmp_path / "said" / str(rank)).read_text(), re.M) for rank in range(2)]
    assert [len(lines) for lines in said] == [1 - teller, teller], said
    assert said[teller][0].startswith(f"fastdraw: error: {message}")
    assert int(read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")["step"]) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"batch_size": 5}, "batch_size must divide by 2, 2 processes x accumulate 1; got 5"),
        ({"batch_size": 6, "accumulate": 2}, "batch_size must divide by 4, 2 processes x accumulate 2; got 6"),
        ({"root": "/nowhere"}, "/nowhere/MNIST/raw"),
    ],
    ids=["processes", "accumulate", "data"],
)
def test_group_refuses_before_it_writes(tmp_path: Path, overrides: dict[str, Any], message: str) -> None:
    folder = tmp_path / "run"
    arguments = tiny_arguments(**overrides)
    processes, _store = warm.started_group(2, ["train", *arguments, "--out", str(folder)], tmp_path / "said")
    assert warm.ended(processes) == [1, 1]
    said = [(tmp_path / "said" / str(rank)).read_text() for rank in range(2)]
    assert f"fastdraw: error: {message}" in said[0]
    assert said[1] == ""
    assert not folder.exists()


def test_one_process_refuses_parts_that_do_not_divide_the_batch(tmp_path: Path) -> None:
    with pytest.raises(FastdrawError, match="batch_size must divide by 3, 1 processes x accumulate 3; got 4"):
        train(tiny(accumulate=3), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_processes_that_nobody_started_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FastdrawError, match=r"cannot join the 2 processes .*: start them by torchrun"), joined():
        pass


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for rank in range(2):
        assert Group(rank, 2, rank).device("auto", loop.pick_device) == torch.device("cuda", rank)
    assert taken == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert Group(1, 2, 1).device("cpu", loop.pick_device) == torch.device("cpu")
    assert Group().device("cuda:1", loop.pick_device) == torch.device("cuda", 1)
    with pytest.raises(FastdrawError, match="device cuda:0 is one GPU for 2 processes"):
        Group(1, 2, 1).device("cuda:0", loop.pick_device)
    with pytest.raises(FastdrawError, match="process 2 of this machine has no GPU: it shows 2 to PyTorch"):
        Group(2, 3, 2).device("cuda", loop.pick_device)
