"""Batch norm in the loop: a multi-stage VAE's running means are saved, resumed, averaged and left alone by testing."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastdraw.training import Run, load_model, resume, train
from fastdraw.training.bound import mean_terms
from fastdraw.training.checkpoint import read_checkpoint
from fastdraw.training.distributed import share
from fastdraw.training.sources import training_source
from fastdraw.training.state import TrainingState
from tests.training import warm
from tests.training.test_distributed import assert_same_curve, assert_same_tensors, run_group
from tests.training.test_loop import assert_same_end, rows
from tests.training.tiny import tiny_vae, tiny_vae_arguments

MEAN = "refiners.0.blocks.2.layers.3.running_mean"
COUNT = "refiners.0.blocks.2.layers.3.num_batches_tracked"
CONSTANT = {"optimiser.schedule": "constant"}


def saved(folder: Path) -> dict[str, Tensor]:
    return read_checkpoint(Run.open(folder).checkpoint_path)


def test_testing_changes_no_running_mean_and_uses_them(tmp_path: Path) -> None:
    settings = tiny_vae(steps=6, optimiser__ema=0)
    train(settings, tmp_path / "often")
    train(settings.model_copy(update={"evaluate_every": 100}), tmp_path / "once")
    assert_same_tensors(tmp_path / "often", tmp_path / "once")
    model, _ = load_model(tmp_path / "often")
    assert not any(module.training for module in model.modules())
    assert saved(tmp_path / "often")[f"model.{COUNT}"] == 6
    # An image is then drawn alike whatever it is drawn with.
    noise = model.noise(4)
    torch.testing.assert_close(model.sample(None, None, noise)[:1], model.sample(None, None, noise[:, :1]))


def test_averaged_model_takes_the_running_means_as_they_are(tmp_path: Path) -> None:
    train(tiny_vae(steps=3), tmp_path)
    tensors, model = saved(tmp_path), load_model(tmp_path)[0]
    average = {name: tensors[f"average.module.{name}"] for name in model.state_dict()}
    assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())
    for name, buffer in model.named_buffers():
        if f"model.{name}" in tensors:
            assert torch.equal(buffer, tensors[f"model.{name}"])
    assert average[MEAN].abs().min() > 0
    assert not any(torch.equal(weight, tensors[f"model.{name}"]) for name, weight in model.named_parameters())


def test_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    arguments = ["train", *tiny_vae_arguments(steps=100_000, **CONSTANT), "--out", str(folder)]
    process = warm.started(arguments, tmp_path / "said")
    warm.wait_for_step(folder, 6)
    os.kill(process.pid, signal.SIGKILL)
    assert warm.ended([process]) == [-signal.SIGKILL], (tmp_path / "said").read_text()
    steps = rows(folder)[-1]["step"] + 3
    resume(folder, steps=steps)
    train(tiny_vae(steps=steps, optimiser__schedule="constant"), tmp_path / "whole")
    assert_same_end(folder, tmp_path / "whole")


def test_parts_of_a_batch_are_normed_each_by_itself(tmp_path: Path) -> None:
    for name, settings in {"staged": {}, "plain": {"model__refiners": 0}}.items():
        train(tiny_vae(steps=4, **settings), tmp_path / f"{name}-whole")
        train(tiny_vae(steps=4, accumulate=2, **settings), tmp_path / f"{name}-parts")
    assert_same_curve(tmp_path / "plain-parts", tmp_path / "plain-whole", 1e-4)
    losses = [rows(tmp_path / f"staged-{name}")[-1]["refinement"] for name in ("whole", "parts")]
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)
    assert saved(tmp_path / "staged-parts")[f"model.{COUNT}"] == 2 * saved(tmp_path / "staged-whole")[f"model.{COUNT}"]


@pytest.mark.parametrize(("loss", "accumulate"), [("l1", 1), ("adversarial", 2)])
def test_two_processes_norm_by_their_own_share_and_resume_bit_for_bit(
    tmp_path: Path, loss: str, accumulate: int
) -> None:
    changes = {"refinement.loss": loss, "accumulate": accumulate, **CONSTANT}
    for name, steps in (("whole", 4), ("parts", 2), ("once", 1)):
        arguments = ["train", *tiny_vae_arguments(steps=steps, **changes), "--out", str(tmp_path / name)]
        run_group(2, arguments, tmp_path / f"said-{name}")
    run_group(2, ["resume", str(tmp_path / "parts"), "--steps", "4"], tmp_path / "said-resumed")
    assert_same_tensors(tmp_path / "parts", tmp_path / "whole")

    # What the first process has seen in the first step is what is kept of it.
    state = TrainingState(tiny_vae(), torch.device("cpu"))
    batch = training_source(tiny_vae()).batch(0)
    noise = state.model.noise(*batch.labels.shape, state.generator)
    for index in range(accumulate):
        mean_terms(state.objective, *share(batch, noise, index, 2 * accumulate))
    kept = saved(tmp_path / "once")
    torch.testing.assert_close(kept[f"model.{MEAN}"], state.model.get_buffer(MEAN))
    assert kept[f"model.{COUNT}"] == accumulate
