"""What is timed, by name, and how each competitor does it. Needs torch and pytest alone.

ops       each op alone at the sizes of benchmarks/bench_*.py
rollouts  R of paper 000, T = 30: a training step, its forward pass, a drawing
compiled  its training step again, beside torch.compile's, which needs a minute or more for a rollout
lstm      the recurrent core alone, T steps of a plain LSTM, which cuDNN can do and DRAW cannot use
"""

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.gpu.device import DEVICE, DRY, Call
from fastdraw import ops, reference
from fastdraw.ops import DrawWeights
from fastdraw.ops.rollout import SHAPES

BENCHMARKS = Path(__file__).parents[1]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CUDNN_DTYPES = DTYPES | {"float16": torch.float16}
BATCHES = (3, 1) if DRY else (128, 16, 1)
MODES = {"compile": "default", "reduce-overhead": "reduce-overhead"}  # of torch.compile
PLAIN = ("eager", *MODES)  # who calls plain PyTorch; others call fastdraw


class Sizes(NamedTuple):
    """R, by the letters of the contract."""

    B: int
    C: int = 1
    H: int = 8 if DRY else 32
    W: int = 8 if DRY else 64
    T: int = 2 if DRY else 30
    L: int = 3
    D: int = 20
    A: int = 16 if DRY else 512
    U: int = 16 if DRY else 400
    Z: int = 4 if DRY else 100
    N: int = 3 if DRY else 8

    @property
    def letters(self) -> dict[str, int]:
        glimpse = self.C * self.N**2
        return self._asdict() | {"E": 2 * glimpse + self.U, "F": self.Z + self.D, "P": glimpse}


class Timed(NamedTuple):
    """A case that is ready to be called."""

    call: Call
    moved: int | None = None  # bytes that any implementation reads and writes
    flops: int | None = None  # of its matrix products


Make = Callable[[], Timed]


def cases(group: str, who: str) -> dict[str, Make]:
    """The cases of a group in which `who` takes part."""
    made = {"ops": _ops, "rollouts": _rollouts, "compiled": _compiled, "lstm": _lstm}[group](who)
    return dict(list(made.items())[:3]) if DRY and who in MODES else made


def _compile(who: str, function: Callable[..., Any]) -> Callable[..., Any]:
    # Inductor's C++ takes a minute to compile, and a dry run is about what comes before.
    how: dict[str, Any] = {"backend": "aot_eager"} if DRY else {"mode": MODES[who]}
    return torch.compile(function, fullgraph=True, dynamic=False, **how)


# ----------------------------------------------------------------------------------------------------------- ops


def _ops(who: str) -> dict[str, Make]:
    found: dict[str, Make] = {}
    for path in sorted(BENCHMARKS.glob("bench_*.py")):
        if path.stem == "bench_rollout":
            continue
        module = _with_library(path, reference if who in PLAIN else ops)
        for dtype, (name, function) in product(DTYPES, list(vars(module).items())):
            if name.startswith("bench_"):
                for values in _parameters(function):
                    sizes = [str(value) if key == "passes" else f"{key}={value}" for key, value in values.items()]
                    case = " ".join([name.removeprefix("bench_"), *sorted(sizes, key=lambda x: "=" in x), dtype])
                    found[case] = partial(_op, who, module, function, values, dtype)
    return found


def _with_library(path: Path, library: ModuleType) -> ModuleType:
    """A benchmark file of its own, that calls the functions of `library` where it says `ops`."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__dict__["ops"] = library
    if DRY:
        module.__dict__.update(B=2, H=6, W=8)
    return module


def _parameters(function: Any) -> Iterator[dict[str, Any]]:
    """What pytest would call the benchmark with, but for the backend."""
    marks = [mark.args for mark in function.pytestmark if mark.name == "parametrize" and mark.args[0] != "backend"]
    for values in product(*(values for _, values in marks)):
        yield dict(zip((name for name, _ in marks), values, strict=True))


def _op(who: str, module: ModuleType, benchmark: Callable[..., None], values: dict[str, Any], dtype: str) -> Timed:
    caught: list[tuple[str, Callable[..., Any], tuple[Tensor, ...]]] = []
    module.__dict__["measure"] = lambda _benchmark, _backend, passes, function, *inputs: caught.append(
        (passes, function, inputs)
    )
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        with torch.device(DEVICE):
            benchmark(None, backend="reference", **values)
    finally:
        torch.set_default_dtype(default)
    ((passes, function, inputs),) = caught
    constants = [x for x in inspect.getclosurevars(function).nonlocals.values() if isinstance(x, Tensor)]
    if who in MODES:
        function = _compile(who, function)
    return _passes(function, inputs, constants, backward=passes != "forward")


def _passes(function: Callable[..., Any], inputs: tuple[Tensor, ...], constants: list[Tensor], backward: bool) -> Timed:
    inputs = tuple(x.requires_grad_(backward) for x in inputs)
    outputs = _tensors(function(*inputs))
    upstream = [torch.ones_like(y) for y in outputs]
    moved = _bytes([*inputs, *constants, *outputs])
    if not backward:
        return Timed(lambda: function(*inputs), moved)
    moved += _bytes([*inputs, *constants, *upstream, *inputs])
    return Timed(lambda: torch.autograd.grad(_tensors(function(*inputs)), inputs, upstream), moved)


def _tensors(outputs: Any) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else [y for y in outputs if isinstance(y, Tensor)]


def _bytes(tensors: list[Tensor]) -> int:
    return sum(x.nbytes for x in tensors)


# ------------------------------------------------------------------------------------------------------ rollouts


def _rollouts(who: str) -> dict[str, Make]:
    return {
        f"{kind} B={batch} {dtype}": partial(rollout, who, kind, Sizes(batch), dtype)
        for kind, batch, dtype in product(("training", "forward", "drawing"), BATCHES, DTYPES)
    }


def _compiled(who: str) -> dict[str, Make]:
    return {name: make for name, make in _rollouts(who).items() if name.startswith(f"training B={BATCHES[0]} ")}


def weights_of(sizes: Sizes) -> DrawWeights:
    """Weights in the scale of Draw's, whose module needs more than torch."""
    made = {}
    for name, shape in SHAPES.items():
        dims = [_dimension(word, sizes.letters) for word in shape.split()]
        scale = (0.1 if name in ("posterior", "prior", "read_window", "write_window") else 1.0) * dims[-1] ** -0.5
        random = len(dims) == 2 or name == "align_v"
        made[name] = (scale * torch.randn(dims) if random else torch.zeros(dims)).to(DEVICE).requires_grad_()
    return DrawWeights(**made)


def _dimension(word: str, letters: dict[str, int]) -> int:
    letter = word.lstrip("0123456789")
    return int(word[: len(word) - len(letter)] or 1) * (letters[letter] if letter else 1)


def rollout(who: str, kind: str, sizes: Sizes, dtype: str) -> Timed:
    torch.manual_seed(0)
    weights = weights_of(sizes)
    B, C, H, W, T, L, D, *_ = sizes
    image, labels = torch.rand(B, C, H, W).to(DEVICE), torch.rand(B, L, D).to(DEVICE)
    noise = torch.randn(T, B, sizes.Z).to(DEVICE)
    library, N = reference if who in PLAIN else ops, sizes.N

    def autocast() -> Any:
        return torch.autocast(DEVICE, torch.bfloat16) if dtype == "bfloat16" else nullcontext()

    def loss(weights: DrawWeights) -> Tensor:
        output = library.draw_rollout(weights, image, labels, None, noise, n_read=N, n_write=N)
        return (output.nll + output.kl.sum(0)).mean()

    def draw(weights: DrawWeights) -> Tensor:
        return library.draw_generate(weights, labels, None, noise, n_write=N)

    function = draw if kind == "drawing" else loss
    if who in MODES:
        function = _compile(who, function)
        for x in (*weights, image, labels, noise):
            torch._dynamo.mark_static_address(x)  # else every replay copies its inputs

    def train() -> tuple[Tensor, ...]:
        with autocast():
            value = function(weights)
        return value.detach(), *torch.autograd.grad(value, weights)

    @torch.no_grad()
    def forward() -> Tensor:
        with autocast():
            return function(weights)

    if kind == "drawing":
        weights = weights._replace(**{name: w.detach() for name, w in weights._asdict().items()})
        return Timed(forward, least_bytes(sizes, dtype), 2 * multiply_adds(sizes, encoder=False))
    once = 2 * multiply_adds(sizes)
    if kind == "forward":
        return Timed(forward, least_bytes(sizes, dtype), once)
    return Timed(train, 3 * least_bytes(sizes, dtype), 3 * once)


def multiply_adds(sizes: Sizes, encoder: bool = True) -> int:
    """Of every product with a weight in T steps, forward."""
    encoders = ("read_window", "enc", "posterior")
    per_step = 0
    for name, shape in SHAPES.items():
        dims = [_dimension(word, sizes.letters) for word in shape.split()]
        if len(dims) == 2 and name != "align_key" and (encoder or not name.startswith(encoders)):
            per_step += dims[0] * dims[1]
    return sizes.T * sizes.B * per_step + sizes.B * sizes.L * sizes.A * sizes.D


def least_bytes(sizes: Sizes, dtype: str) -> int:
    """The least that goes to and from memory: every weight once, image, noise and canvas."""
    weights = 0
    for shape in SHAPES.values():
        count = 1
        for word in shape.split():
            count *= _dimension(word, sizes.letters)
        weights += count
    pixels = sizes.B * sizes.C * sizes.H * sizes.W
    return weights * DTYPES[dtype].itemsize + 4 * (2 * pixels + sizes.T * sizes.B * sizes.Z)


# ---------------------------------------------------------------------------------------------------------- lstm


def _lstm(who: str) -> dict[str, Make]:
    assert who == "cudnn"
    return {
        f"lstm {passes} B={batch} {dtype}": partial(_cudnn, passes, Sizes(batch), dtype)
        for batch, passes, dtype in product(BATCHES, ("forward", "forward+backward"), CUDNN_DTYPES)
    }


def _cudnn(passes: str, sizes: Sizes, dtype: str) -> Timed:
    """T steps of U units on an input of U, with the gradient of input and weights."""
    lstm = nn.LSTM(sizes.U, sizes.U).to(DEVICE, CUDNN_DTYPES[dtype])
    x = torch.randn(sizes.T, sizes.B, sizes.U).to(DEVICE, CUDNN_DTYPES[dtype]).requires_grad_()
    flops = 2 * sizes.T * sizes.B * 8 * sizes.U**2
    if passes == "forward":
        return Timed(torch.no_grad()(lambda: lstm(x)[0]), None, flops)
    leaves = [x, *lstm.parameters()]
    dy = torch.ones_like(lstm(x)[0])
    return Timed(lambda: torch.autograd.grad(lstm(x)[0], leaves, dy), None, 3 * flops)
