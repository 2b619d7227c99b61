"""Inputs of every public op, by name, and the backends that can run it here.

The letters in a case's name are those of the signatures: `B2-C1-H32xW64-N8` has a batch of 2, and so on.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import fastdraw
from fastdraw import dispatch, ops

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class Inputs:
    """Seeded tensors of one dtype on one device; the same numbers for every dtype, up to rounding."""

    def __init__(self, name: str, dtype: torch.dtype, device: str):
        self.dtype, self.device = dtype, device
        self.generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return self._place(scale * torch.randn(shape, dtype=torch.float64, generator=self.generator))

    def uniform(self, *shape: int) -> Tensor:
        return self._place(torch.rand(shape, dtype=torch.float64, generator=self.generator))

    def window(self, batch: int, *centre_and_logs: float | None) -> Tensor:
        """Windows (batch, 5) near the whole image; a number instead of None stands in that column, +- by sample."""
        window = 0.5 * torch.randn(batch, 5, dtype=torch.float64, generator=self.generator)
        for column, value in enumerate(centre_and_logs):
            if value is not None:
                window[:, column] = torch.tensor([value, -value] * batch)[:batch]
        return self._place(window)

    def counts(self, *values: int) -> Tensor:
        return torch.tensor(values, device=self.device)

    def _place(self, x: Tensor) -> Tensor:
        limits = torch.finfo(self.dtype)
        return x.clamp(limits.min, limits.max).to(self.dtype).to(self.device)


class Case(NamedTuple):
    op: str
    name: str
    make: Callable[[Inputs], dict[str, Any]]

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"

    def inputs(self, dtype: torch.dtype = torch.float32, device: str = "cpu") -> dict[str, Any]:
        return self.make(Inputs(str(self), dtype, device))


CASES: list[Case] = []
LONG = ("T19", "T19-lengths-steps", "B33-T3")


def _add(op: str, name: str, make: Callable[[Inputs], dict[str, Any]]) -> None:
    CASES.append(Case(op, name, make))


def _add_glimpses(name: str, sizes: tuple[int, ...], *window: float | None, **options: Any) -> None:
    """The four ops with a window, on sizes B, C, H, W, N."""
    B, C, H, W, N = sizes
    name = f"B{B}-C{C}-H{H}xW{W}-N{N}" + (f"-{name}" if name else "")
    _add(
        "gaussian_filterbank",
        name,
        lambda make: {"window": make.window(B, *window), "n": N, "size": (H, W), **options},
    )
    _add(
        "glimpse_read",
        name,
        lambda make: {"image": make.normal(B, C, H, W), "window": make.window(B, *window), "n": N, **options},
    )
    _add(
        "glimpse_write",
        name,
        lambda make: {
            "patch": make.normal(B, C, N, N),
            "window": make.window(B, *window),
            "size": (H, W),
            "canvas": make.normal(B, C, H, W),
            **options,
        },
    )
    _add(
        "draw_read",
        name,
        lambda make: {
            "image": make.uniform(B, C, H, W),
            "canvas": make.normal(B, C, H, W),
            "window": make.window(B, *window),
            "n": N,
            **options,
        },
    )


# The first case of each op is its small one, for the checks that call an op very often.
_add_glimpses("", (2, 2, 3, 4, 2))
_add_glimpses("per_axis", (2, 1, 4, 3, 3), stride="per_axis")
_add_glimpses("eps", (2, 1, 4, 3, 3), eps=0.1)
_add_glimpses("", (1, 1, 1, 1, 1))
_add_glimpses("", (2, 1, 5, 7, 1))
_add_glimpses("", (3, 3, 5, 3, 7))
_add_glimpses("", (5, 3, 31, 65, 7), stride="per_axis")
_add_glimpses("", (9, 1, 32, 64, 8))
_add_glimpses("", (3, 2, 60, 60, 12))
_add_glimpses("far", (2, 1, 9, 17, 5), 50.0, -3.0)
_add_glimpses("log_sigma2=30", (2, 1, 9, 17, 5), None, None, 30.0)
_add_glimpses("log_delta=30", (2, 1, 9, 17, 5), None, None, None, 30.0)
_add_glimpses("log_delta=30-N1", (2, 1, 9, 17, 1), 0.1, 0.1, None, 30.0)
_add_glimpses("log_sigma2=-30", (2, 1, 9, 17, 5), None, None, -30.0)
_add_glimpses("logs=-30", (2, 1, 9, 17, 5), None, None, -30.0, -30.0, -30.0)
_add_glimpses("on_pixels-log_sigma2=30", (2, 1, 9, 17, 5), 0.0, 0.0, 30.0, 0.0, 0.0)
_add_glimpses("huge_centre", (2, 1, 9, 17, 5), 1e30, -1e30)
_add_glimpses("huge_logs", (2, 1, 9, 17, 5), None, None, 1e30, -1e30)
_add_glimpses("huge", (2, 1, 9, 17, 5), 1e30, 1e30, -1e30, -1e30)
_add(
    "gaussian_filterbank",
    "log_gamma=30",
    lambda make: {"window": make.window(2, 0, 0, 0, 0, 30), "n": 4, "size": (5, 6)},
)
_add("gaussian_filterbank", "all=1e30", lambda make: {"window": make.window(2, *[1e30] * 5), "n": 4, "size": (5, 6)})
_add(
    "glimpse_write",
    "no_canvas",
    lambda make: {"patch": make.normal(2, 2, 3, 3), "window": make.window(2), "size": (5, 4)},
)
_add(
    "glimpse_write",
    "patch_is_canvas",
    lambda make: _twice(make.normal(2, 1, 5, 5), "patch", "canvas", make, size=(5, 5)),
)
_add("draw_read", "image_is_canvas", lambda make: _twice(make.uniform(2, 1, 5, 5), "image", "canvas", make, n=3))


def _twice(x: Tensor, first: str, second: str, make: Inputs, **options: Any) -> dict[str, Any]:
    return {first: x, second: x, "window": make.window(x.shape[0]), **options}


def _add_attention(
    name: str, B: int, L: int, A: int, D: int, lengths: tuple[int, ...] | None = None, scale: float = 1.0
) -> None:
    _add(
        "additive_attention",
        f"B{B}-L{L}-A{A}-D{D}" + name,
        lambda make: {
            "query": make.normal(B, A),
            "keys": make.normal(B, L, A),
            "values": make.normal(B, L, D),
            "v": make.normal(A, scale=scale),
            "lengths": None if lengths is None else make.counts(*lengths),
        },
    )


_add_attention("-lengths", 2, 3, 4, 2, (1, 3))
_add_attention("", 2, 3, 4, 2)
_add_attention("", 1, 1, 1, 1)
_add_attention("-lengths", 5, 7, 33, 20, (1, 7, 3, 2, 6))
_add_attention("", 3, 1, 16, 8)
_add_attention("", 9, 2, 15, 1)
_add_attention("-lengths", 6, 4, 512, 20, (1, 2, 3, 4, 4, 2))
_add_attention("-large", 5, 5, 257, 7, scale=30.0)
_add(
    "additive_attention",
    "values_are_keys",
    lambda make: {"query": make.normal(2, 3), "keys": (x := make.normal(2, 4, 3)), "values": x, "v": make.normal(3)},
)


def _add_gates(name: str, B: int, U: int, scale: float = 1.0) -> None:
    _add(
        "lstm_gates",
        f"B{B}-U{U}{name}",
        lambda make: {"gates": make.normal(B, 4 * U, scale=scale), "c": make.normal(B, U)},
    )


_add_gates("", 2, 3)
_add_gates("", 1, 1)
_add_gates("", 3, 63)
_add_gates("", 2, 64)
_add_gates("", 9, 65)
_add_gates("", 5, 400)
_add_gates("-large", 3, 17, scale=30.0)
_add_gates("-tiny", 3, 17, scale=1e-3)


def _add_step(name: str, B: int, width: int, U: int, *biases: str) -> None:
    _add(
        "lstm_step",
        f"B{B}-I{width}-U{U}{name}",
        lambda make: {
            "input": make.normal(B, width),
            "state": (make.normal(B, U), make.normal(B, U)),
            "w_ih": make.normal(4 * U, width, scale=0.3),
            "w_hh": make.normal(4 * U, U, scale=0.3),
            **{bias: make.normal(4 * U) for bias in biases},
        },
    )


_add_step("-biases", 2, 3, 2, "b_ih", "b_hh")
_add_step("-b_ih", 2, 3, 2, "b_ih")
_add_step("-b_hh", 2, 3, 2, "b_hh")
_add_step("", 1, 1, 1)
_add_step("-biases", 5, 31, 33, "b_ih", "b_hh")
_add(
    "lstm_step",
    "h_is_c",
    lambda make: {
        "input": make.normal(2, 3),
        "state": (make.normal(2, 3),) * 2,
        "w_ih": (w := make.normal(12, 3)),
        "w_hh": w,
    },
)


def _add_latent(name: str, B: int, Z: int, prior: bool, log_sigma: float = 0.5) -> None:
    def make_latent(make: Inputs) -> dict[str, Any]:
        made = {"mu_q": make.normal(B, Z), "log_sigma_q": make.normal(B, Z, scale=log_sigma)}
        if prior:
            made |= {"mu_p": make.normal(B, Z), "log_sigma_p": make.normal(B, Z, scale=0.5)}
        return made

    name = f"B{B}-Z{Z}-{'prior' if prior else 'standard'}{name}"
    _add("gaussian_kl", name, make_latent)
    _add("sample_kl", name, lambda make: {**make_latent(make), "noise": make.normal(B, Z)})


_add_latent("", 2, 3, True)
_add_latent("", 2, 3, False)
_add_latent("", 1, 1, True)
_add_latent("", 7, 101, True)
_add_latent("", 7, 101, False)
_add_latent("", 2, 257, False)
_add_latent("-wide", 3, 5, True, log_sigma=2.0)
_add_latent("-wide", 3, 17, False, log_sigma=15.0)
_add_latent("-near", 3, 16, False, log_sigma=1e-3)
_add(
    "gaussian_kl",
    "q_is_p",
    lambda make: {
        "mu_q": (mu := make.normal(2, 3)),
        "log_sigma_q": (s := make.normal(2, 3)),
        "mu_p": mu,
        "log_sigma_p": s,
    },
)
_add(
    "gaussian_kl",
    "log_sigma=15",
    lambda make: {
        "mu_q": make.normal(4, 9),
        "log_sigma_q": 15 * make.normal(4, 9).sign(),
        "mu_p": make.normal(4, 9),
        "log_sigma_p": 15 * make.normal(4, 9).sign(),
    },
)
_add(
    "sample_kl",
    "one_tensor",
    lambda make: dict.fromkeys(("mu_q", "log_sigma_q", "noise"), make.normal(2, 3, scale=0.5)),
)


def _add_likelihood(name: str, *shape: int, scale: float = 1.0, log_sigma: float = 0.3) -> None:
    name = "x".join(map(str, shape)) + name
    _add(
        "bernoulli_nll", name, lambda make: {"logits": make.normal(*shape, scale=scale), "target": make.uniform(*shape)}
    )
    _add(
        "gaussian_nll",
        name,
        lambda make: {
            "mean": make.normal(*shape),
            "log_sigma": make.normal(*shape, scale=log_sigma),
            "target": make.uniform(*shape),
        },
    )


_add_likelihood("", 2, 1, 2, 3)
_add_likelihood("", 3)
_add_likelihood("", 1, 1)
_add_likelihood("", 5, 3, 31, 65)
_add_likelihood("", 2, 16)
_add_likelihood("", 3, 1025)  # one more than the CPU kernels take at once
_add_likelihood("-large", 2, 7, scale=30.0, log_sigma=15.0)
_add_likelihood("-huge", 2, 17, scale=1e4)
_add("bernoulli_nll", "one_tensor", lambda make: dict.fromkeys(("logits", "target"), make.uniform(2, 3)))


class Draw(NamedTuple):
    """Sizes of a rollout; None for a part that the model lacks."""

    B: int = 2
    C: int = 1
    H: int = 3
    W: int = 4
    T: int = 2
    L: int | None = 2
    D: int = 2
    A: int = 3
    U: int = 2
    Z: int = 2
    n_read: int | None = 2
    n_write: int | None = 3

    @property
    def pixels(self) -> int:
        return self.C * self.H * self.W

    def weights(self, make: Inputs) -> ops.DrawWeights:
        """Weights in the scale of a fresh nn.Linear."""

        def linear(*shape: int) -> Tensor:
            return make.normal(*shape, scale=max(shape[-1], 1) ** -0.5)

        _B, C, H, W, _T, _L, D, A, U, Z, n_read, n_write = self
        glimpse = 2 * (self.pixels if n_read is None else C * n_read**2)
        patch = self.pixels if n_write is None else C * n_write**2
        attends, reads, writes = self.L is not None, n_read is not None, n_write is not None
        return ops.DrawWeights(
            align_query=linear(A, U) if attends else None,
            align_bias=make.normal(A) if attends else None,
            align_key=linear(A, D) if attends else None,
            align_v=linear(A) if attends else None,
            read_window=linear(5, U) if reads else None,
            read_window_bias=make.normal(5, scale=0.5) if reads else None,
            enc_ih=linear(4 * U, glimpse + U),
            enc_hh=linear(4 * U, U),
            enc_bias=make.normal(4 * U),
            posterior=linear(2 * Z, U),
            posterior_bias=make.normal(2 * Z, scale=0.3),
            prior=linear(2 * Z, U),
            prior_bias=make.normal(2 * Z, scale=0.3),
            dec_ih=linear(4 * U, Z + (D if attends else 0)),
            dec_hh=linear(4 * U, U),
            dec_bias=make.normal(4 * U),
            patch=linear(patch, U),
            patch_bias=make.normal(patch),
            write_window=linear(5, U) if writes else None,
            write_window_bias=make.normal(5, scale=0.5) if writes else None,
            h0_enc=make.normal(U),
            h0_dec=make.normal(U),
            canvas0=make.normal(C, H, W),
        )

    def generate(self, make: Inputs, **options: Any) -> dict[str, Any]:
        """Arguments of draw_generate."""
        arguments = {
            "weights": self.weights(make),
            "labels": None if self.L is None else make.normal(self.B, self.L, self.D),
            "lengths": None,
            "noise": make.normal(self.T, self.B, self.Z),
            "n_write": self.n_write,
        }
        for name in options.keys() & {"lengths", "steps"}:
            options[name] = make.counts(*options[name])
        return arguments | options

    def rollout(self, make: Inputs, **options: Any) -> dict[str, Any]:
        """Arguments of draw_rollout."""
        image = make.uniform(self.B, self.C, self.H, self.W)
        return {**self.generate(make, **options), "image": image, "n_read": self.n_read}


def _add_rollouts(name: str, draw: Draw, biases: dict[str, tuple[float, ...]] | None = None, **options: Any) -> None:
    """Both rollouts; `biases` are added to weights, in equal parts of each."""

    def shifted(arguments: dict[str, Any]) -> dict[str, Any]:
        weights = arguments["weights"]
        for weight, values in (biases or {}).items():
            x = getattr(weights, weight)
            shift = torch.tensor(values, dtype=torch.float64).repeat_interleave(x.numel() // len(values))
            weights = weights._replace(**{weight: (x.double() + shift.to(x.device)).to(x.dtype)})
        return {**arguments, "weights": weights}

    _add("draw_rollout", name, lambda make: shifted(draw.rollout(make, **options)))
    _add("draw_generate", name, lambda make: shifted(draw.generate(make, **options)))


_add_rollouts("lengths-steps", Draw(), lengths=(1, 2), steps=(2, 1))
_add_rollouts("T1", Draw(T=1))
_add_rollouts("no_labels", Draw(L=None))
_add_rollouts("no_windows", Draw(n_read=None, n_write=None))
_add_rollouts("alignDRAW", Draw(), prior_activation="tanh", first_prior="standard", log_variance=True)
_add_rollouts("C3-T5-L4-per_axis", Draw(B=3, C=3, H=9, W=13, T=5, L=4, D=7, A=5, U=11, Z=6), stride="per_axis")
_add_rollouts("N1", Draw(n_read=1, n_write=1))
_add_rollouts("N>H", Draw(H=2, W=3, n_read=5, n_write=4))
_add_rollouts("all=1", Draw(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1))
_add_rollouts("L1-T1-C3", Draw(B=3, C=3, H=5, W=7, T=1, L=1, D=3, A=5, U=7, Z=3, n_read=3))
_add_rollouts("steps=0", Draw(T=3), steps=(0, 0))
_add_rollouts("steps=0-some", Draw(B=5, T=3, L=3), steps=(0, 3, 1, 0, 2), lengths=(3, 1, 2, 1, 3))
_add_rollouts("C3-no_labels-no_windows-steps", Draw(B=3, C=3, T=3, L=None, n_read=None, n_write=None), steps=(1, 3, 0))
_add_rollouts("C2-no_read-lengths-steps", Draw(C=2, T=3, n_read=None), lengths=(2, 1), steps=(3, 2))
_add_rollouts("C2-no_labels-no_write-steps", Draw(C=2, T=3, L=None, n_write=None), steps=(2, 3))
# More than twice the steps that a backward pass on a GPU makes again at a time; samples end within, at and behind it.
_add_rollouts("T19", Draw(T=19, L=None, n_read=None, n_write=None))
_add_rollouts("T19-lengths-steps", Draw(B=4, T=19), lengths=(1, 2, 2, 1), steps=(19, 3, 8, 12))
# One less than the columns of a panel of the products (twice those in float64), as many, and one more.
for width in (15, 16, 17):
    _add_rollouts(f"panels-{width}", Draw(L=3, D=width, A=width, U=width, Z=width, n_read=4, n_write=4))
# Products over more than one block of columns; samples for several threads.
_add_rollouts("D515", Draw(B=7, T=1, D=515))
_add_rollouts("A515", Draw(B=7, T=1, A=515))
_add_rollouts("pixels=515", Draw(H=5, W=103, T=1, n_read=None, n_write=None))
_add_rollouts("B33-T3", Draw(B=33, T=3, U=5))
_WINDOWS = ("read_window_bias", "write_window_bias")
for far in (50.0, -50.0):
    _add_rollouts(f"far={far:.0f}", Draw(), dict.fromkeys(_WINDOWS, (far, 0.0, 0.0, 0.0, 0.0)))
for log in (30.0, -30.0):
    _add_rollouts(f"window_log_sigma2={log:.0f}", Draw(B=3), dict.fromkeys(_WINDOWS, (0.0, 0.0, log, 0.0, 0.0)))
_add("draw_generate", "frames", lambda make: Draw().generate(make, frames=True))
_add(
    "draw_generate",
    "frames-steps",
    lambda make: Draw(B=3, C=2, T=4, n_write=None).generate(make, frames=True, steps=(2, 0, 4)),
)

OPS = tuple(dict.fromkeys(case.op for case in CASES))
SMALL = {op: next(case for case in CASES if case.op == op) for op in OPS}
TABLE = {op.name: op for op in ops.TABLE}


class Run(NamedTuple):
    """An op on one backend and device; calling it runs the op there."""

    op: str
    backend: str
    device: str

    def __str__(self) -> str:
        return "-".join([self.backend, *([self.device] if self.device != "cpu" else [])])

    def __call__(self, **arguments: Any) -> Any:
        for x in tree_leaves(arguments):
            if isinstance(x, Tensor) and x.is_floating_point():
                why = self.refusal(x.dtype)
                if why is not None:
                    pytest.skip(f"{self.op} on {self.backend}: {why}")
                break
        with self.forced():
            return getattr(ops, self.op)(**arguments)

    def refusal(self, dtype: torch.dtype) -> str | None:
        """Why the backend cannot serve this dtype, if so; parametrised tests leave it out, those of one dtype skip."""
        name = str(dtype).removeprefix("torch.")
        return dispatch.refusal(self.backend, self.op, TABLE[self.op].runs_on, self.device, name)

    @contextmanager
    def forced(self) -> Iterator[None]:
        with fastdraw.backend(self.backend):
            yield

    @property
    def fused(self) -> bool:
        return self.backend in ("cuda", "triton", "cpu")


def runs(op: str, dtype: torch.dtype = torch.float32) -> list[Run]:
    """Every way to run `op` on this machine, or only that which FASTDRAW_BACKEND names."""
    backends = [dispatch.forced()] if dispatch.forced() else dispatch.BACKENDS
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    found = [Run(op, backend, device) for device in devices for backend in backends]
    return [run for run in found if run.refusal(dtype) is None]


def parameter(run: Run, *others: Any, name: str = "") -> Any:
    words = [name] if name else [str(other).removeprefix("torch.") for other in others]
    marks = [pytest.mark.gpu] if run.device == "cuda" else []
    return pytest.param(run, *others, id="-".join([*words, str(run)]), marks=marks)


def every_case(*dtypes: torch.dtype, long: bool = True) -> pytest.MarkDecorator:
    """Parametrise a test over (run, case, dtype); not `long`: without those that take an interpreter seconds."""
    left_out = LONG if not long and os.environ.get("TRITON_INTERPRET") == "1" else ()
    cases = [case for case in CASES if case.name not in left_out]
    return pytest.mark.parametrize(
        ("run", "case", "dtype"),
        [parameter(run, case, dtype) for case in cases for dtype in dtypes for run in runs(case.op, dtype)],
    )


def every_run(*names: str, reference: bool = True, kernels: bool = True) -> pytest.MarkDecorator:
    """Parametrise a test over the runs of the ops `names`, all by default; `reference` also where there are kernels."""
    found = [run for op in names or OPS for run in runs(op)]
    has_others = {run.op for run in found if run.backend != "reference"}
    found = [run for run in found if reference or run.backend != "reference" or run.op not in has_others]
    found = [run for run in found if kernels or not run.fused]
    return pytest.mark.parametrize("run", [parameter(run, name=run.op) for run in found])
