"""Processes that are forked from one that has imported and read everything: they start in a fraction of a second."""

import multiprocessing
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch.distributed as dist

from fastdraw.cli import main

WAIT = 300  # seconds, on a machine that has much else to do

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.training.warm", "tests.training.preloaded"])


def started(
    arguments: list[str],
    output: Path,
    environment: dict[str, str] | None = None,
    first: Callable[[], None] | None = None,
) -> ForkServerProcess:
    """Run a command of fastdraw in a new process, in which every warning is an error.

    Args:
        arguments: what stands after "fastdraw".
        output: file for its stdout and stderr.
        environment: variables to set.
        first: a function of a module, called in the process before the command.
    """
    process = _context.Process(target=_run, args=(arguments, output, environment or {}, first))
    process.start()
    return process


def started_group(
    size: int, arguments: list[str], outputs: Path, first: Callable[[], None] | None = None
) -> tuple[list[ForkServerProcess], dist.TCPStore]:
    """Run a command of fastdraw in `size` processes as torchrun would; their outputs are outputs/RANK.

    The store, through which they find each other, must live as long as they do.
    """
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    outputs.mkdir(parents=True, exist_ok=True)
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return [started(arguments, outputs / rank["RANK"], common | rank, first) for rank in ranks], store


def ended(processes: list[ForkServerProcess]) -> list[int | None]:
    """Wait for the processes and return their exit codes; None for one that hangs, which is killed."""
    codes = []
    for process in processes:
        process.join(WAIT)
        codes.append(process.exitcode)
        process.kill()
        process.join()
    return codes


def wait_for_step(folder: Path, step: int) -> None:
    """Wait until a run has written a row of metrics of a step from the given one on."""
    path, deadline = folder / "metrics.jsonl", time.monotonic() + WAIT
    while not any(int(number) >= step for number in re.findall('"step": ([0-9]+),', _text(path))):
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _run(arguments: list[str], output: Path, environment: dict[str, str], first: Callable[[], None] | None) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.update(environment)
    warnings.simplefilter("error")
    if first is not None:
        first()
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 99
    sys.stdout.flush()
    os._exit(status)
