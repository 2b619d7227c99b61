"""The one training loop: start a run, go on with one, load what it learned."""

import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fastdraw.errors import FastdrawError
from fastdraw.models import Draw, Model
from fastdraw.training.bound import mean_terms, measure_terms, noise_for, repeat
from fastdraw.training.checkpoint import read_checkpoint, write_checkpoint
from fastdraw.training.distributed import Group, joined, share, unsynchronised
from fastdraw.training.export import CONFIG, load_saved
from fastdraw.training.run import MetricsFile, Run
from fastdraw.training.settings import DEVICE, Settings
from fastdraw.training.sources import Source, held_out_source, training_source
from fastdraw.training.state import TrainingState, learning_rate, trained_model

SAMPLES = 16
TITLES = {"nll": "NLL", "kl": "KL", "refinement": "refinement"}


def train(settings: Settings, folder: Path) -> None:
    """Train from the start to the last step and leave a run in the folder.

    Under torchrun every process calls this; the first one writes, and raises what ends them all.

    Raises:
        FastdrawError: the folder holds a run, another process trains in it, no data, a batch that cannot be shared
            out, a loss that is not finite or has exploded, a file that cannot be written, a process that is lost.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.
        SystemExit: another process of the run raises one of these.
    """
    with joined() as group, ExitStack() as held:
        group.check(settings)
        run = group.from_first(lambda: Run.create(folder))
        state, sources = _state(settings, group), _sources(settings, group)

        def claim() -> None:
            held.enter_context(run.locked())
            Run.create(folder)  # another process may have been faster
            run.save_settings(settings)

        group.from_first(claim)
        _loop(run, settings, state, *sources, group)


def resume(folder: Path, steps: int | None = None) -> None:
    """Go on with a run from its checkpoint, to `steps` steps in all where given; raises as `train`.

    On the same machine, with the same number of processes, threads and steps, a run that was killed at any moment and
    resumed ends bit for bit where an undisturbed run ends. With another number of processes it is the same run but for
    the order in which sums are rounded.
    """
    with joined() as group, ExitStack() as held:

        def claim() -> tuple[Run, Settings]:
            run = Run.open(folder)
            held.enter_context(run.locked())
            settings = run.settings()
            return run, settings if steps is None else settings.with_steps(steps)

        run, settings = group.from_first(claim)
        group.check(settings)
        state = _state(settings, group)
        _restore(run, state, group)
        if settings.steps < state.step:
            message = f"{folder} is at step {state.step} already: --steps must be at least that, got {steps}"
            group.stop(FastdrawError(message))
        if settings.steps == state.step:
            if group.first:
                print(f"{folder} has taken all its {state.step} steps: to train on, give more --steps")
            return
        sources = _sources(settings, group)
        group.from_first(lambda: run.save_settings(settings))
        _loop(run, settings, state, *sources, group)


def train_or_resume(settings: Settings, folder: Path) -> None:
    """Train from the start, or go on with the run of the same settings that the folder holds; raises as `train`.

    Raises:
        FastdrawError: the folder holds a run of other settings.
    """
    run = Run(folder)
    if not run.settings_path.exists():
        train(settings, folder)
    elif run.settings() == settings:
        resume(folder)
    else:
        raise FastdrawError(f"{folder} holds a run of other settings: give another --out")


def load_model(folder: Path, device: str = "cpu") -> tuple[Model, Settings]:
    """Load the model of a run, or one that `save_model` wrote, in evaluation mode.

    Of a run that keeps averaged weights, it is these.

    Raises:
        FastdrawError: no run, no checkpoint yet, or a checkpoint that is damaged or of other settings.
    """
    run = Run(folder)
    if not run.settings_path.exists() and (folder / CONFIG).is_file():
        return load_saved(folder, pick_device(device))
    run = Run.open(folder)
    settings = run.settings()
    if not run.checkpoint_path.exists():
        raise FastdrawError(f"{folder} has no checkpoint yet: go on with fastdraw resume {folder}")
    return trained_model(settings, run.checkpoint_path, pick_device(device)), settings


def load_draw(folder: Path, device: str = "cpu") -> tuple[Draw, Settings]:
    """Load as `load_model` a model that draws step by step.

    Raises:
        FastdrawError: as `load_model`, or the run is of another kind of model.
    """
    model, settings = load_model(folder, device)
    if not isinstance(model, Draw):
        raise FastdrawError(f"{folder} is a run of a VAE, which does not draw step by step: give one of a DRAW model")
    return model, settings


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


def _state(settings: Settings, group: Group) -> TrainingState:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    with group.together():
        state = TrainingState(settings, group.device(settings.device, pick_device))
    state.processes = group.size
    return state


def _restore(run: Run, state: TrainingState, group: Group) -> None:
    """Take over the checkpoint that the first process reads, if there is one."""
    tensors = group.from_first(lambda: read_checkpoint(run.checkpoint_path) if run.checkpoint_path.exists() else None)
    if tensors is None:
        return
    with group.together():
        state.load(tensors, run.checkpoint_path)
    if state.processes != group.size and group.first:
        print(
            f"note: {state.processes} processes trained up to here, now {group.size}: "
            f"the same run, but for the order in which sums are rounded"
        )
    state.processes = group.size


def _sources(settings: Settings, group: Group) -> tuple[Source, Source]:
    """What to train on, and what to test on."""
    return group.first_per_machine(lambda: (training_source(settings), held_out_source(settings, settings.batch_size)))


def _loop(run: Run, settings: Settings, state: TrainingState, source: Source, held_out: Source, group: Group) -> None:
    parameters = list(state.objective.parameters())
    if state.step == 0 and isinstance(state.model, Draw):
        state.model.set_canvas(source.mean_image())
    objective = group.wrap(state.objective)
    if group.size > 1:
        # After its first backward DDP puts the gradients into another order, in which a ring of processes adds them up
        # in another one. Done before the first step, a resumed run adds as one that was never stopped.
        before, buffers = state.generator.get_state(), [buffer.clone() for buffer in state.objective.buffers()]
        _backward(settings, state, objective, source, group)
        state.generator.set_state(before)
        for buffer, value in zip(state.objective.buffers(), buffers, strict=True):
            buffer.copy_(value)
    with (
        _log(run, settings, state) if group.first else nullcontext() as log,
        _stop_request(group) as stopping,
    ):
        while state.step < settings.steps:
            state.optimiser.zero_grad()
            sums = _backward(settings, state, objective, source, group)
            norm = clip_grad_norm_(parameters, settings.optimiser.clip or math.inf)
            *values, grad_norm = torch.cat([sums, norm[None]]).tolist()
            *values, stops = group.mean([*values, float(stopping())])
            terms = state.objective.named(values)
            _check_loss(settings, state, terms, grad_norm, group)
            lr = learning_rate(settings.optimiser, state.step, settings.steps)
            for param_group in state.optimiser.param_groups:
                param_group["lr"] = lr
            state.optimiser.step()
            if state.average is not None:
                state.average.update_parameters(state.model)

            state.losses[state.step % len(state.losses)] = terms["loss"]
            state.step += 1
            last, stopped = state.step == settings.steps, stops > 0
            logged, tested, saved = (
                last or state.step % every == 0
                for every in (settings.log_every, settings.evaluate_every, settings.checkpoint_every)
            )
            if log:
                log.advance(terms)
            with group.together() if logged or tested or saved or stopped else nullcontext():
                if log and logged:
                    log.record("train", terms, grad_norm, lr)
                if log and tested:
                    with _evaluating(state.evaluated) as evaluated:
                        values = measure_terms(state.objective, evaluated, held_out, settings.test_batches)
                        log.record("test", state.objective.named(values))
                        log.show(state.objective.named(values), _samples(evaluated, held_out))
                if log and (saved or stopped):
                    log.metrics.sync()
                    write_checkpoint(run.checkpoint_path, state.tensors(), settings)
            if stopped and not last:
                group.stop(KeyboardInterrupt(f"stopped at step {state.step}: go on with fastdraw resume {run.folder}"))


def _backward(settings: Settings, state: TrainingState, objective: nn.Module, source: Source, group: Group) -> Tensor:
    """Leave the gradient of the mean over a whole batch in the weights; return this process' mean terms (terms,)."""
    batch = repeat((source.mixed_batch if settings.mixed else source.batch)(state.step), settings.samples)
    noise = noise_for(state.model, batch.labels, state.generator)
    total = noise.new_zeros(len(state.objective.names))
    for number in range(settings.accumulate):
        index, shares = group.rank * settings.accumulate + number, group.size * settings.accumulate
        with unsynchronised(objective) if number + 1 < settings.accumulate else nullcontext():
            with torch.autocast(noise.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                terms = mean_terms(objective, *share(batch, noise, index, shares)) / settings.accumulate
            state.objective.loss(terms).backward()
        total += terms.detach()
    return total


def _check_loss(
    settings: Settings, state: TrainingState, terms: dict[str, float], grad_norm: float, group: Group
) -> None:
    """Raises: FastdrawError: the loss is not finite, or far above the loss of the steps before."""
    place = f"at step {state.step + 1}, batch {state.step}"
    advice = "the last checkpoint is kept, try a lower --optimiser.lr"
    loss = terms["loss"]
    if not math.isfinite(loss + grad_norm):
        shown = ", ".join(f"{TITLES[name]} {terms[name]:g}" for name in state.objective.names)
        group.stop(FastdrawError(f"{shown}, gradient norm {grad_norm:g} {place}: not finite; {advice}"))
    # A Gaussian likelihood can be a density above 1: losses then fall through 0, where their median is of no size.
    usual = state.losses.abs().median().item()
    # The first longer numbers of a curriculum may well cost many times what the numbers before them did.
    starts = [start for _, start in settings.curriculum.stages(settings.data.lengths, settings.steps)]
    of_this_stage = state.step - max(start for start in starts if start <= state.step)
    if of_this_stage >= len(state.losses) and settings.explode * usual < loss:
        message = (
            f"loss {loss:g} {place}: more than {settings.explode:g} times {usual:g}, the median size of the "
            f"{len(state.losses)} steps before; {advice}, or a higher --explode if that is no accident"
        )
        group.stop(FastdrawError(message))


class _Log:
    """What a run tells of itself: metrics.jsonl, TensorBoard and the progress bar."""

    def __init__(self, state: TrainingState, metrics: MetricsFile, board: SummaryWriter, bar: tqdm) -> None:
        self.metrics = metrics
        self._state, self._board, self._bar = state, board, bar
        self._before, self._start = metrics.seconds, time.monotonic()

    def advance(self, terms: dict[str, float]) -> None:
        self._bar.set_postfix(nll=f"{terms['nll']:.1f}", kl=f"{terms['kl']:.1f}", refresh=False)
        self._bar.update()

    def record(
        self, split: str, terms: dict[str, float], grad_norm: float | None = None, lr: float | None = None
    ) -> None:
        values = terms | {"grad_norm": grad_norm, "lr": lr}
        seconds = self._before + time.monotonic() - self._start
        self.metrics.write({"step": self._state.step, "split": split, **values, "seconds": seconds})
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(f"{split}/{name}", value, self._state.step)

    def show(self, terms: dict[str, float], samples: Tensor) -> None:
        self._board.add_images("samples", samples, self._state.step)
        objective = self._state.objective
        parts = [
            f"{'' if weight == 1 else f'{weight:g} x '}{TITLES[name]} {terms[name]:.2f}"
            for name, weight in zip(objective.names, objective.weights.tolist(), strict=True)
        ]
        unit = "" if "refinement" in objective.names else " nats"  # which a refinement loss is not in
        self._bar.write(f"step {self._state.step}: test {' + '.join(parts)} = {terms['loss']:.2f}{unit}")


@contextmanager
def _log(run: Run, settings: Settings, state: TrainingState) -> Iterator[_Log]:
    with (
        _write_errors(run),
        closing(MetricsFile(run, state.step)) as metrics,
        closing(SummaryWriter(str(run.tensorboard_path), purge_step=state.step + 1)) as board,
        tqdm(total=settings.steps, initial=state.step, unit="step", disable=None) as bar,
    ):
        yield _Log(state, metrics, board, bar)


@contextmanager
def _evaluating(model: Model) -> Iterator[Model]:
    """The model as it is tested: batch norms use the means of training, and do not learn."""
    mode = model.training
    try:
        yield model.eval()
    finally:
        model.train(mode)


@torch.no_grad()
def _samples(model: Model, source: Source) -> Tensor:
    batch = source.batch(0)
    labels, lengths = batch.labels[:SAMPLES], batch.lengths[:SAMPLES]
    noise = noise_for(model, labels, torch.Generator().manual_seed(0))
    canvas = cast(Tensor, model.sample(labels.to(noise.device), lengths.to(noise.device), noise))
    return model.expected(canvas)


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
def _stop_request(group: Group) -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM ask to stop after the step, so that no half-made step is saved.

    A second one stops at once, but not one of several processes: torchrun passes on what they may have got already, and
    kills them if they take too long.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def ask(*_: object) -> None:
        asked.set()
        if group.size == 1:
            restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        restore()
