"""What a run changes as it goes: weights, their average, Adam's moments, random generators and the step."""

import math
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fastdraw.errors import FastdrawError
from fastdraw.models import Model, build_model
from fastdraw.training.checkpoint import Layout, check_layout, read_checkpoint
from fastdraw.training.objective import Objective
from fastdraw.training.settings import OptimiserSettings, Settings

MOMENTS = ("exp_avg", "exp_avg_sq")
WINDOW = 100  # steps whose losses are kept


class TrainingState:
    """The state after `step` steps; batches and learning rate are functions of the step, which is all their state."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.step = 0
        self.processes = 1
        self.losses = torch.zeros(WINDOW, dtype=torch.float64)  # of step s at s mod WINDOW
        self.model = build_model(settings.model).to(device)
        self.objective = Objective(self.model, settings).to(device)
        self.optimiser = torch.optim.Adam(
            self.objective.parameters(), lr=settings.optimiser.lr, betas=settings.optimiser.betas, fused=True
        )
        self.average: AveragedModel | None = None
        if settings.optimiser.ema:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(settings.optimiser.ema))
        # On the CPU, so that a checkpoint goes on with the same noise on any device; not the stream of the weights.
        self.generator = torch.Generator().manual_seed(int(torch.randint(2**32, ())))

    @property
    def evaluated(self) -> Model:
        """The model that is tested and drawn from: the averaged weights where there are any."""
        return cast(Model, self.average.module) if self.average is not None else self.model

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds, by name, at least one step after the start."""
        tensors = dict(self.objective.state_dict())
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        for name, parameter in self._parameters():
            moments = self.optimiser.state[parameter]
            tensors |= {f"adam.{name}.{key}": moments[key] for key in ("step", *MOMENTS)}
        return tensors | {
            "random.torch": torch.get_rng_state(),
            "random.noise": self.generator.get_state(),
            "losses": self.losses,
            "processes": torch.tensor(self.processes),
            "step": torch.tensor(self.step),
        }

    def restore(self, path: Path) -> None:
        """Take over a checkpoint of the same settings, all or nothing.

        Raises:
            FastdrawError: the file is missing, damaged or of other settings; the state is unchanged.
        """
        self.load(read_checkpoint(path), path)

    def load(self, tensors: dict[str, Tensor], path: Path) -> None:
        """Take over the tensors of the checkpoint at `path`; raises as `restore` where they do not fit."""
        check_layout(path, tensors, self._layout())
        self.objective.load_state_dict({name: tensors[name] for name in self.objective.state_dict()})
        if self.average is not None:
            self.average.load_state_dict(_under("average.", tensors))
        moments = {
            index: {key: tensors[f"adam.{name}.{key}"] for key in ("step", *MOMENTS)}
            for index, (name, _) in enumerate(self._parameters())
        }
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        torch.set_rng_state(tensors["random.torch"])
        self.generator.set_state(tensors["random.noise"])
        self.losses.copy_(tensors["losses"])
        self.processes = int(tensors["processes"])
        self.step = int(tensors["step"])

    def _parameters(self) -> list[tuple[str, Tensor]]:
        """What is optimised, in the optimiser's order, by name; the model's have no prefix."""
        return [(name.removeprefix("model."), parameter) for name, parameter in self.objective.named_parameters()]

    def _layout(self) -> Layout:
        scalar, number = (torch.float32, ()), (torch.int64, ())
        layout: Layout = {name: _kind(tensor) for name, tensor in self.objective.state_dict().items()}
        if self.average is not None:
            layout |= {f"average.{name}": _kind(tensor) for name, tensor in self.average.state_dict().items()}
        for name, parameter in self._parameters():
            layout |= {f"adam.{name}.step": scalar} | {f"adam.{name}.{key}": _kind(parameter) for key in MOMENTS}
        return layout | {
            "random.torch": _kind(torch.get_rng_state()),
            "random.noise": _kind(self.generator.get_state()),
            "losses": _kind(self.losses),
            "processes": number,
            "step": number,
        }


def trained_model(settings: Settings, path: Path, device: torch.device) -> Model:
    """The model of a checkpoint, in evaluation mode: averaged where it was; needs nothing that only its loss needs.

    Raises:
        FastdrawError: the file is missing, damaged or of other settings.
    """
    kept = "average.module." if settings.optimiser.ema else "model."
    return model_of(settings, _under(kept, read_checkpoint(path)), path, device)


def model_of(settings: Settings, tensors: dict[str, Tensor], path: Path, device: torch.device) -> Model:
    """The model of settings with the tensors that were read from `path`, in evaluation mode.

    Raises:
        FastdrawError: the tensors are of another model, or not finite.
    """
    with torch.random.fork_rng(devices=[]):
        model = build_model(settings.model).to(device)
    check_layout(path, tensors, {name: _kind(tensor) for name, tensor in model.state_dict().items()})
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise FastdrawError(f"{path}: {name} is not finite everywhere: train again, with a lower --optimiser.lr")
    model.load_state_dict(tensors)
    return model.eval()


def learning_rate(settings: OptimiserSettings, step: int, steps: int) -> float:
    """The rate of step number `step` (from 0) of `steps`: a line up over the warm-up, then a half cosine down to 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr * (1 + math.cos(math.pi * (step - settings.warmup) / (steps - settings.warmup))) / 2


def _kind(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...]]:
    return tensor.dtype, tuple(tensor.shape)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
