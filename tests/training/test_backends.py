"""Training with the fused rollout, held against training with the plain loop."""

from pathlib import Path

import pytest
import torch

import fastdraw
from fastdraw import dispatch
from fastdraw.training import loop, train
from fastdraw.training.checkpoint import read_checkpoint
from fastdraw.training.distributed import Group
from fastdraw.training.settings import Settings
from fastdraw.training.state import TrainingState
from tests.training.test_loop import rows
from tests.training.tiny import tiny

ULP = torch.finfo(torch.float32).eps
SLACK = 2 * 16 * ULP  # what the tests of the ops allow to a rollout, on both sides


def learned(folder: Path, backend: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Loss and gradient norm of every step (200, 2), and all that a run holds in the end, by name."""
    settings = tiny(steps=200, optimiser__lr=1e-3, evaluate_every=200, checkpoint_every=200)
    with fastdraw.backend(backend):
        train(settings, folder)
    curve = [[row["loss"], row["grad_norm"]] for row in rows(folder) if row["split"] == "train"]
    tensors = read_checkpoint(folder / "checkpoint.safetensors")
    return torch.tensor(curve, dtype=torch.float64), {
        name: x.double() for name, x in tensors.items() if x.is_floating_point()
    }


@pytest.mark.skipif(dispatch.extension_refusal is not None, reason="the C++ extension is not built")
def test_fused_training_is_plain_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within rounding for 200 steps. How rounding grows is measured: by plain training from weights one ulp away.

    Adam takes the same steps with a gradient that is a multiple of the right one, but its moments tell them apart.
    """
    curve, end = learned(tmp_path / "plain", "reference")
    fused_curve, fused_end = learned(tmp_path / "fused", "cpu")

    def moved(settings: Settings, group: Group, make=loop._state) -> TrainingState:
        state = make(settings, group)
        with torch.no_grad():
            for parameter in state.model.parameters():
                parameter.mul_(1 + ULP * torch.randn(parameter.shape).sign())
        return state

    monkeypatch.setattr(loop, "_state", moved)
    moved_curve, moved_end = learned(tmp_path / "moved", "reference")

    def off(x: torch.Tensor) -> torch.Tensor:
        """The largest relative difference up to every step."""
        return ((x - curve) / curve).abs().cummax(0).values

    def distance(x: torch.Tensor, name: str) -> float:
        return ((x - end[name]).norm() / end[name].norm().clamp(min=torch.finfo(torch.float32).tiny)).item()

    bound = SLACK + 4 * off(moved_curve)
    assert (off(fused_curve) <= bound).all(), (off(fused_curve) / bound).max()
    for name in end:
        actual, bound = distance(fused_end[name], name), SLACK + 4 * distance(moved_end[name], name)
        assert actual <= bound, f"{name}: {actual:.3g}, bound {bound:.3g}"
