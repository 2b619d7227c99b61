"""A run that is killed 20 times, at random moments and in the middle of its writes, loses nothing."""

import functools
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastdraw import files
from fastdraw.training import Run, checkpoint, resume, train
from fastdraw.training.checkpoint import read_checkpoint
from tests.training import warm
from tests.training.test_loop import assert_same_end
from tests.training.tiny import tiny, tiny_arguments

CONSTANT = {"optimiser.schedule": "constant"}  # the learning rate of a step does not depend on how many there are
MOMENTS = ("half the file", "before fsync", "after fsync", "after the rename")
KILLS = 20


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in_checkpoint(number: int, moment: str) -> None:
    """Kill this process at a moment of its write number `number` of a checkpoint."""
    real, calls = files.write_atomically, 0

    def write(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            if moment == "half the file":
                path.with_name(f".{path.name}.part").write_bytes(data[: len(data) // 2])
                die()
            elif moment == "before fsync":
                os.fsync = die
            elif moment == "after fsync":
                Path.replace = die  # type: ignore[method-assign]
            else:
                real(path, data)
                die()
        real(path, data)

    checkpoint.write_atomically = write  # type: ignore[attr-defined]


def test_twenty_kills_lose_nothing(tmp_path: Path) -> None:
    """Of the kills 8 hit the write of a checkpoint, the others come some rows and milliseconds after the start.

    The moments of the latter depend on the machine, and how far the run gets with them: the undisturbed run is made as
    long as the killed one was.
    """
    draw = random.Random(0)
    folder, said = tmp_path / "killed", tmp_path / "said"
    step, steps = 0, []
    plan = [*MOMENTS, *MOMENTS, *[None] * (KILLS - 2 * len(MOMENTS))]
    draw.shuffle(plan)
    for moment in plan:
        first: Callable[[], None] | None = None
        if moment is not None:
            first = functools.partial(die_in_checkpoint, draw.randint(1, 3), moment)
        if (folder / "settings.json").exists():
            arguments = ["resume", str(folder)]
        else:
            arguments = ["train", *tiny_arguments(steps=100_000, **CONSTANT), "--out", str(folder)]
        process = warm.started(arguments, said, first=first)
        if moment is None:
            if draw.random() < 0.8:
                warm.wait_for_step(folder, step + draw.randint(1, 10))
            time.sleep(draw.uniform(0, 0.02))
            os.kill(process.pid, signal.SIGKILL)
        assert warm.ended([process]) == [-signal.SIGKILL], said.read_text()
        path = Run(folder).checkpoint_path
        step = int(read_checkpoint(path)["step"]) if path.exists() else 0
        steps.append(step)

    assert steps == sorted(steps)
    assert len(set(steps)) > KILLS / 4, "the kills are spread over the run"
    end = step + 6
    resume(folder, steps=end)
    train(tiny(steps=end, optimiser__schedule="constant"), tmp_path / "undisturbed")
    assert_same_end(folder, tmp_path / "undisturbed")
    assert not list(folder.glob(".*"))
