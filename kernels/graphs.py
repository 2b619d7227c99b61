"""CUDA graphs behind an op: a pass of many launches is captured once per shape, and replayed.

A graph works on memory of its own, which stays where it is: a call copies its inputs there, replays, and copies the
results out. The first call of a shape runs as it is, which compiles the kernels, and the second one captures; graphs of
the last MAX_SHAPES shapes of a device are kept. Inside a user's own capture the launches go straight into the user's
graph.

A CPU has no graphs. In Triton's interpreter the pass runs again in their place, so that all but the capture is tested.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch

MAX_SHAPES = 8


class Pass(Protocol):
    """Holds memory; `run` launches all kernels on it."""

    def run(self) -> None: ...


AnyPass = TypeVar("AnyPass", bound=Pass)
Result = TypeVar("Result")


class _Device:
    """The graphs of one device, which run one at a time.

    Those of a shape share their memory, and those of all shapes the workspace that cuBLAS has for the stream on which
    they are captured.
    """

    def __init__(self, device: torch.device):
        self.lock = threading.Lock()
        self.shapes: OrderedDict[Hashable, _Shape] = OrderedDict()
        # A stream of this device: torch's own for captures belongs to the first device that ever captured.
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.done = torch.cuda.Event() if device.type == "cuda" else None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let the current stream wait for the one that ran a graph last, and the next one for this."""
        if self.done is None:
            yield
            return
        self.done.wait()
        try:
            yield
        finally:  # also where the results found no memory
            self.done.record()

    def shape(self, shape: Hashable) -> "_Shape":
        found = self.shapes.setdefault(shape, _Shape())
        self.shapes.move_to_end(shape)
        if len(self.shapes) > MAX_SHAPES:
            self.wait()
            self.shapes.popitem(last=False)
        return found

    def wait(self) -> None:
        """Until the GPU is through with the graphs, whose memory would otherwise go to others."""
        if self.done is not None:
            self.done.synchronize()


class _Shape:
    """The passes of calls of one shape: which have run, and those that were captured."""

    def __init__(self) -> None:
        self.seen: set[Hashable] = set()
        self.captured: dict[Hashable, tuple[Pass, Callable[[], None]]] = {}


_devices: dict[torch.device, _Device] = {}
_capturing = threading.Lock()  # CUDA takes one capture at a time in a process


def run(
    shape: Hashable,
    name: Hashable,
    device: torch.device,
    make: Callable[[], AnyPass],
    load: Callable[[AnyPass], None],
    results: Callable[[AnyPass, bool], Result],
) -> Result:
    """The results of the pass `name` for inputs of a shape: as it is, or as a graph's replay.

    `load` copies the inputs into the pass's memory. `results` is told whether the pass stays: then it must not return
    the pass's own memory, where the next call writes.
    """
    shape = shape, torch.backends.cuda.matmul.fp32_precision  # which a capture cannot take back
    if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
        return _run_once(make, load, results)
    on_device = _devices.get(device) or _devices.setdefault(device, _Device(device))
    with on_device.lock:
        of_shape = on_device.shape(shape)
        if name not in of_shape.seen:
            found = _run_once(make, load, results)
            of_shape.seen.add(name)
            return found
        with on_device.turn():
            if name not in of_shape.captured:
                try:
                    # Memory made in inference mode could not be written outside of it.
                    with torch.inference_mode(False), torch.no_grad():
                        made = make()
                        load(made)
                        of_shape.captured[name] = made, _capture(made, on_device.stream)
                except torch.cuda.OutOfMemoryError:  # no room for memory that stays: a call alone takes less
                    return _run_once(make, load, results)
            else:
                load(of_shape.captured[name][0])
            made, replay = of_shape.captured[name]
            replay()
            return results(made, True)


def clear() -> None:
    """Give back the memory of all graphs."""
    for on_device in list(_devices.values()):
        with on_device.lock:
            on_device.wait()
            on_device.shapes.clear()


def _run_once(
    make: Callable[[], AnyPass], load: Callable[[AnyPass], None], results: Callable[[AnyPass, bool], Result]
) -> Result:
    made = make()
    load(made)
    made.run()
    return results(made, False)


def _capture(made: Pass, stream: torch.cuda.Stream | None) -> Callable[[], None]:
    if stream is None:
        return made.run
    graph = torch.cuda.CUDAGraph()
    torch.cuda.current_blas_handle()  # a thread that has none yet could not get one while it captures
    # Other threads may go on with what would spoil a capture of the whole process.
    with _capturing, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        made.run()
    return graph.replay
