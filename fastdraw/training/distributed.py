"""The processes of one run: torchrun starts them, each takes its share of every batch, and the first one writes."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import timedelta
from typing import NoReturn, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastdraw.data import Batch
from fastdraw.errors import FastdrawError
from fastdraw.training.settings import Settings

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # of a wait for another process, which may be testing or preparing data
INTERRUPTED = 130
FAILED = "fastdraw/failed"
LOST = "gloo|NCCL|Connection"  # in the words of torch, as another process is gone


class Group:
    """The processes that train one model; alone, none of its methods talks to anybody.

    All of them hold the same state and take the same batches and noise, of which each computes its share. Only the
    first one touches the folder of the run.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self.first = rank == 0
        self.agreed = False  # all processes know that they end

    def check(self, settings: Settings) -> None:
        """Check that the batch can be shared out.

        Raises:
            FastdrawError: batch_size does not divide by processes x accumulate.
        """
        shares = self.size * settings.accumulate
        if settings.batch_size % shares:
            self.stop(
                FastdrawError(
                    f"batch_size must divide by {shares}, {self.size} processes x accumulate {settings.accumulate}; "
                    f"got {settings.batch_size}"
                )
            )

    def device(self, name: str, pick: Callable[[str], torch.device]) -> torch.device:
        """The device of this process: what `pick` makes of the name, and of several GPUs one for each process.

        Raises:
            FastdrawError: one device is named for several processes, or there are fewer GPUs than processes.
        """
        device = pick(name)
        if self.size == 1 or device.type == "cpu":
            return device
        if device.index is not None:
            raise FastdrawError(
                f"device {name} is one GPU for {self.size} processes: with torchrun, give --device cuda or cpu"
            )
        if self.local_rank >= torch.cuda.device_count():
            raise FastdrawError(
                f"process {self.local_rank} of this machine has no GPU: it shows {torch.cuda.device_count()} to "
                f"PyTorch; give torchrun --nproc-per-node {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(device)
        return device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model whose backward leaves the mean of all processes' gradients in the weights."""
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        return DistributedDataParallel(
            model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
        )

    def mean(self, values: list[float]) -> list[float]:
        """Means over all processes."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return cast(list[float], (total / self.size).tolist())

    def from_first(self, compute: Callable[[], T]) -> T:
        """What the first process computes, on all of them; where it fails, all end."""
        with self.together():
            box = [compute() if self.first else None]
        if self.size > 1:
            dist.broadcast_object_list(box, device=torch.device("cpu"))
        return cast(T, box[0])

    def first_per_machine(self, compute: Callable[[], T]) -> T:
        """What each process computes, after the first of its machine, which may fill a cache; if one fails, all end."""
        with self.together():
            result = compute() if self.local_rank == 0 else None
        with self.together():
            return cast(T, compute() if self.local_rank else result)

    @contextmanager
    def together(self) -> Iterator[None]:
        """All processes come to the end of this block, or all end there: one with what it raised, the others silent."""
        if self.size == 1:
            yield
            return
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
        failed = torch.tensor(self.size if failure is None else self.rank)
        dist.all_reduce(failed, dist.ReduceOp.MIN)
        if int(failed) == self.size:
            return
        self.agreed = True
        if failure is not None and int(failed) == self.rank:
            raise failure
        raise SystemExit(1)

    def stop(self, reason: BaseException) -> NoReturn:
        """End all processes, which have all met the same reason; the first one raises it."""
        self.agreed = True
        if self.first:
            raise reason
        raise SystemExit(INTERRUPTED if isinstance(reason, KeyboardInterrupt) else 1)


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that torchrun started, if it did; else be alone.

    Raises:
        FastdrawError: they cannot be joined, or one of them is lost.
        SystemExit: another process has ended with an error, which it tells.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    try:
        group = Group(int(os.environ["RANK"]), size, int(os.environ["LOCAL_RANK"]))
        store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=group.rank, world_size=size, timeout=TIMEOUT)
    except (KeyError, ValueError, RuntimeError) as error:
        raise FastdrawError(f"cannot join the {size} processes of this run ({error}): start them by torchrun") from None
    try:
        yield group
    except Exception as error:
        if not group.agreed:
            # Whoever waits for this process learns from the store that the reason is told already.
            with suppress(RuntimeError):
                if store.check([FAILED]):
                    raise SystemExit(1) from None
                store.set(FAILED, str(group.rank))
            if isinstance(error, RuntimeError) and re.search(LOST, str(error)):
                raise FastdrawError(
                    "another process of this run has ended or does not answer: the last checkpoint is whole, "
                    "go on with fastdraw resume"
                ) from error
            raise  # without leaving the group, which would wait for the others
        dist.destroy_process_group()
        raise
    except BaseException:
        if group.agreed:
            dist.destroy_process_group()
        raise
    else:
        dist.destroy_process_group()


def share(batch: Batch, noise: Tensor, index: int, shares: int) -> tuple[Batch, Tensor]:
    """Part number `index` of `shares` equal parts of a batch (B images) and its noise (T, B, Z)."""
    count = len(batch.image) // shares
    rows = slice(index * count, (index + 1) * count)
    return Batch(*(tensor[rows] for tensor in batch)), noise[:, rows]


def unsynchronised(model: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay this process' own in this block."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
