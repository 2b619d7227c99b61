"""CUDA graphs behind an op: a pass of many launches is captured once per shape, and replayed.

A graph works on memory of its own, which stays where it is: a call copies its inputs there, replays, and copies the
results out. The first call of a shape runs as it is, which compiles the kernels, and the second one captures; graphs of
the last MAX_SHAPES shapes are kept. Inside a user's own capture the launches go straight into the user's graph.

A CPU has no graphs. In Triton's interpreter the pass runs again in their place, so that all but the capture is tested.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Protocol, TypeVar

import torch

MAX_SHAPES = 8


class Pass(Protocol):
    """Holds memory; `run` launches all kernels on it."""

    def run(self) -> None: ...


AnyPass = TypeVar("AnyPass", bound=Pass)
Result = TypeVar("Result")


class _Shape:
    """The passes of calls of one shape; they share memory, so that one at a time may use it."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seen: set[Hashable] = set()
        self.captured: dict[Hashable, tuple[Pass, Callable[[], None]]] = {}
        self.lock = threading.Lock()
        self.done = torch.cuda.Event() if device.type == "cuda" else None

    def wait(self) -> None:
        """Let this stream wait for the stream that used the memory last."""
        if self.done is not None:
            torch.cuda.current_stream(self.device).wait_event(self.done)

    def release(self) -> None:
        if self.done is not None:
            self.done.record(torch.cuda.current_stream(self.device))


_shapes: OrderedDict[Hashable, _Shape] = OrderedDict()
_lock = threading.Lock()


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
    of_shape = _find(shape, device)
    with of_shape.lock:
        if name not in of_shape.seen:
            of_shape.seen.add(name)
            return _run_once(make, load, results)
        of_shape.wait()
        if name not in of_shape.captured:
            # Memory made in inference mode could not be written outside of it.
            with torch.inference_mode(False), torch.no_grad():
                made = make()
                load(made)
                of_shape.captured[name] = made, _capture(made, device)
        else:
            load(of_shape.captured[name][0])
        made, replay = of_shape.captured[name]
        replay()
        found = results(made, True)
        of_shape.release()
        return found


def clear() -> None:
    """Give back the memory of all graphs."""
    with _lock:
        while _shapes:
            _forget()


def _run_once(
    make: Callable[[], AnyPass], load: Callable[[AnyPass], None], results: Callable[[AnyPass, bool], Result]
) -> Result:
    made = make()
    load(made)
    made.run()
    return results(made, False)


def _find(shape: Hashable, device: torch.device) -> _Shape:
    with _lock:
        if shape not in _shapes:
            _shapes[shape] = _Shape(device)
        _shapes.move_to_end(shape)
        while len(_shapes) > MAX_SHAPES:
            _forget()
        return _shapes[shape]


def _forget() -> None:
    """Drop the shape that was not used for longest, once the GPU is through with it."""
    _, of_shape = _shapes.popitem(last=False)
    with of_shape.lock:
        if of_shape.done is not None:
            of_shape.done.synchronize()
        of_shape.captured.clear()


def _capture(made: Pass, device: torch.device) -> Callable[[], None]:
    if device.type != "cuda":
        return made.run
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on with what would spoil a capture of the whole process.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made.run()
    return graph.replay
