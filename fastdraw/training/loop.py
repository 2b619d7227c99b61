"""The one training loop: start a run, go on with one, load what it learned."""

import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fastdraw.errors import FastdrawError
from fastdraw.models import Draw
from fastdraw.training.bound import measure_bound, nll_and_kl
from fastdraw.training.checkpoint import write_checkpoint
from fastdraw.training.run import MetricsFile, Run
from fastdraw.training.settings import DEVICE, Settings
from fastdraw.training.sources import Source, held_out_source, training_source
from fastdraw.training.state import TrainingState, learning_rate

SAMPLES = 16


def train(settings: Settings, folder: Path) -> None:
    """Train from the start to the last step and leave a run in the folder.

    Raises:
        FastdrawError: the folder holds a run, another process trains in it, no data, a loss that is not finite, a file
            that cannot be written.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint was written.
    """
    run = Run.create(folder)
    state, sources = _state(settings), _sources(settings)
    with run.locked():
        Run.create(folder)  # another process may have been faster
        run.save_settings(settings)
        _loop(run, settings, state, *sources)


def resume(folder: Path, steps: int | None = None) -> None:
    """Go on with a run from its checkpoint, to `steps` steps in all where given; raises as `train`.

    On the same machine, with the same number of threads and steps, a run that was killed at any moment and resumed ends
    bit for bit where an undisturbed run ends.
    """
    run = Run.open(folder)
    with run.locked():
        settings = run.settings()
        if steps is not None:
            settings = settings.with_steps(steps)
        state = _state(settings)
        if run.checkpoint_path.exists():
            state.restore(run.checkpoint_path)
        if settings.steps < state.step:
            raise FastdrawError(f"{folder} is at step {state.step} already: --steps must be at least that, got {steps}")
        if settings.steps == state.step:
            print(f"{folder} has taken all its {state.step} steps: to train on, give more --steps")
            return
        sources = _sources(settings)
        run.save_settings(settings)
        _loop(run, settings, state, *sources)


def load_model(folder: Path, device: str = "cpu") -> tuple[Draw, Settings]:
    """Load the model of a run, in evaluation mode, with the averaged weights where the run keeps them.

    Raises:
        FastdrawError: no run, no checkpoint yet, or a checkpoint that is damaged or of other settings.
    """
    run = Run.open(folder)
    settings = run.settings()
    if not run.checkpoint_path.exists():
        raise FastdrawError(f"{folder} has no checkpoint yet: go on with fastdraw resume {folder}")
    with torch.random.fork_rng(devices=[]):
        state = TrainingState(settings, pick_device(device))
        state.restore(run.checkpoint_path)
    return state.evaluated.eval(), settings


def pick_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "cuda:N" into a device.

    Raises:
        FastdrawError: there is no such device here.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if not re.fullmatch(DEVICE, name):
        raise FastdrawError(f"no device {name!r}: expected auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise FastdrawError(f"no device {name}: this machine shows {count} CUDA devices to PyTorch; try --device cpu")
    return device


def _state(settings: Settings) -> TrainingState:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return TrainingState(settings, pick_device(settings.device))


def _sources(settings: Settings) -> tuple[Source, Source]:
    """What to train on, and what to test on."""
    return training_source(settings), held_out_source(settings.data, settings.batch_size)


def _loop(run: Run, settings: Settings, state: TrainingState, source: Source, held_out: Source) -> None:
    model, parameters = state.model, list(state.model.parameters())
    device = parameters[0].device.type
    if state.step == 0:
        model.set_canvas(source.mean_image())
    start = time.monotonic()
    with (
        _write_errors(run),
        closing(MetricsFile(run, state.step)) as metrics,
        closing(SummaryWriter(str(run.tensorboard_path), purge_step=state.step + 1)) as board,
        tqdm(total=settings.steps, initial=state.step, unit="step", disable=None) as bar,
        _stop_request() as stopping,
    ):
        before = metrics.seconds

        def record(split: str, nll: float, kl: float, grad_norm: float | None = None, lr: float | None = None) -> None:
            values = {"loss": nll + kl, "nll": nll, "kl": kl, "grad_norm": grad_norm, "lr": lr}
            metrics.write({"step": state.step, "split": split, **values, "seconds": before + time.monotonic() - start})
            for name, value in values.items():
                if value is not None:
                    board.add_scalar(f"{split}/{name}", value, state.step)

        while state.step < settings.steps:
            with torch.autocast(device, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                batch = (source.mixed_batch if settings.mixed else source.batch)(state.step)
                terms = nll_and_kl(model, batch, state.generator, settings.samples)
            state.optimiser.zero_grad()
            terms.sum().backward()
            norm = clip_grad_norm_(parameters, settings.optimiser.clip)
            nll, kl, grad_norm = torch.cat([terms.detach(), norm[None]]).tolist()
            if not math.isfinite(nll + kl + grad_norm):
                raise FastdrawError(
                    f"NLL {nll:g}, KL {kl:g}, gradient norm {grad_norm:g} at step {state.step + 1}, "
                    f"batch {state.step}: not finite; the last checkpoint is kept, try a lower --optimiser.lr"
                )
            lr = learning_rate(settings.optimiser, state.step, settings.steps)
            for group in state.optimiser.param_groups:
                group["lr"] = lr
            state.optimiser.step()
            if state.average is not None:
                state.average.update_parameters(model)

            state.step += 1
            last, stopped = state.step == settings.steps, stopping()
            bar.set_postfix(nll=f"{nll:.1f}", kl=f"{kl:.1f}", refresh=False)
            bar.update()
            if last or state.step % settings.log_every == 0:
                record("train", nll, kl, grad_norm, lr)
            if last or state.step % settings.evaluate_every == 0:
                bound = measure_bound(state.evaluated, held_out, settings.test_batches)
                record("test", bound.nll, bound.kl)
                board.add_images("samples", _samples(state.evaluated, held_out), state.step)
                bar.write(f"step {state.step}: test NLL {bound.nll:.2f} + KL {bound.kl:.2f} = {sum(bound):.2f} nats")
            if last or stopped or state.step % settings.checkpoint_every == 0:
                metrics.sync()
                write_checkpoint(run.checkpoint_path, state.tensors(), settings)
            if stopped and not last:
                raise KeyboardInterrupt(f"stopped at step {state.step}: go on with fastdraw resume {run.folder}")


@torch.no_grad()
def _samples(model: Draw, source: Source) -> Tensor:
    batch = source.batch(0)
    labels, lengths = batch.labels[:SAMPLES], batch.lengths[:SAMPLES]
    count, length = labels.shape
    noise = model.noise(count, length, torch.Generator().manual_seed(0))
    canvas = cast(Tensor, model.sample(labels.to(noise.device), lengths.to(noise.device), noise))
    return canvas.sigmoid()


@contextmanager
def _write_errors(run: Run) -> Iterator[None]:
    """Say where a write failed and how to go on."""
    previous = threading.excepthook
    # TensorBoard's thread prints its error and hands it to this thread, where it is told once and in one line.
    threading.excepthook = lambda args: None if issubclass(args.exc_type, OSError) else previous(args)
    try:
        yield
    except OSError as error:
        raise FastdrawError(
            f"cannot write to {run.folder}: {error.strerror}; the last checkpoint is whole: make room, "
            f"then fastdraw resume {run.folder}"
        ) from error
    finally:
        threading.excepthook = previous


@contextmanager
def _stop_request() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks to stop after the step, so that no half-made step is saved; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
