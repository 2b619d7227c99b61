"""What both passes of a rollout hold: inputs in the compute dtype, weights side by side, first states."""

from typing import Any

import torch
import triton

from .attention import blocks as attention_blocks
from .configs import config
from .glimpse import glimpse_launch
from .numerics import tf32
from .rollout_layout import Call, Spec, Tensor, columns_of, matrices_of, multiply, pack, padded


class Recurrence:
    """Memory for calls of one kind."""

    def __init__(self, spec: Spec):
        self.spec, self.at = spec, spec.at
        self.to, self.matrices = columns_of(spec.at), matrices_of(spec.at)
        at = spec.at
        self.noise = self.empty(at.T, at.B, at.Z)
        self.image = self.empty(at.B, at.C, at.H, at.W) if at.encoder else None
        self.packed = {
            name: self.zeros(matrix.rows, matrix.columns, multiplied=True) for name, matrix in self.matrices.items()
        }
        self.canvas0 = self.empty(1, at.pixels)
        self.no_cell = self.zeros(1, at.U)
        self.first_dec, self.first_enc = (self.zeros(1, padded(at.U + 1), multiplied=True) for _ in range(2))
        # What the first states make is one row for all samples.
        self.from_first_dec, self.from_first_enc = self.empty(1, self.to.from_dec), self.empty(1, self.to.from_enc)
        if at.L:
            self.labels, self.keys = self.empty(at.B * at.L, at.D), self.empty(at.B * at.L, at.A)
            self.align_key, self.align_v = self.empty(at.A, at.D), self.empty(at.A)
        self.lengths, self.steps = (
            None if dtype is None else torch.empty(at.B, dtype=dtype, device=spec.device)
            for dtype in (spec.lengths, spec.steps)
        )

    def empty(self, *shape: int, multiplied: bool = False) -> Tensor:
        dtype = self.spec.product if multiplied else self.spec.compute
        return torch.empty(shape, dtype=dtype, device=self.spec.device)

    def zeros(self, *shape: int, multiplied: bool = False) -> Tensor:
        return self.empty(*shape, multiplied=multiplied).zero_()

    def load(self, call: Call) -> None:
        """Copy a call's inputs in."""
        weights = call.weights
        for name, matrix in self.matrices.items():
            pack(matrix, weights, self.packed[name])
        self.noise.copy_(call.noise)
        self.canvas0.view(weights.canvas0.shape).copy_(weights.canvas0)
        states = [(self.first_dec, weights.h0_dec)]
        if self.at.encoder:
            self.image.copy_(call.image)
            states.append((self.first_enc, weights.h0_enc))
        for state, h0 in states:
            state[0, : self.at.U].copy_(h0)
            state[0, self.at.U] = 1.0
        if self.at.L:
            self.labels.view(call.labels.shape).copy_(call.labels)
            self.align_key.copy_(weights.align_key)
            self.align_v.copy_(weights.align_v)
        for counts, given in ((self.lengths, call.lengths), (self.steps, call.steps)):
            if counts is not None:
                counts.copy_(given)

    def start(self) -> None:
        """What all steps share."""
        self.multiply(self.first_dec, "dec", self.from_first_dec)
        if self.at.encoder:
            self.multiply(self.first_enc, "enc", self.from_first_enc)
        if self.at.L:
            multiply(self.labels, self.align_key.T, self.keys, self.spec.bfloat16)

    def multiply(self, a: Tensor, name: str, out: Tensor) -> None:
        multiply(a, self.packed[name].T, out, self.spec.bfloat16)

    @property
    def options(self) -> dict[str, bool]:
        """Of the kernels that make prior and posterior."""
        spec = self.spec
        return {
            "TANH": spec.tanh_prior, "STANDARD_FIRST": spec.standard_first, "LOG_VARIANCE": spec.log_variance,
            "ENCODER": self.at.encoder, "LABELS": self.at.L > 0, "HAS_LENGTHS": self.lengths is not None,
            "HAS_STEPS": self.steps is not None,
        }  # fmt: skip

    def look_launch(self) -> dict[str, Any]:
        """Constants and tiles of the kernels with windows."""
        at, spec = self.at, self.spec
        launch = glimpse_launch(self.noise, max(at.n_read, at.n_write, 1))
        del launch["BLOCK_N"]
        if spec.bfloat16:
            launch["PRECISION"] = tf32()
        sides = {"N_WRITE": at.n_write, "N_READ": at.n_read}
        tiles = {f"BLOCK_N{key[2]}": max(triton.next_power_of_2(n), 16) for key, n in sides.items()}
        windows = {"WRITE_WINDOW": self.to.write_window, "READ_WINDOW": self.to.read_window}
        return launch | sides | tiles | windows | {
            "HAS_STEPS": self.steps is not None, "PER_AXIS": spec.per_axis, "EPS": spec.eps,
            "HALF": spec.dtype == torch.float16, "BLOCK_P": 1024,
        }  # fmt: skip

    def settle_launch(self) -> dict[str, Any]:
        at, launch = self.at, config("attention", self.noise.device)
        tile = attention_blocks(max(at.L, 1), max(at.A, 1), max(at.D, 1), launch.pop("TILE"))
        return launch | tile | {"BLOCK_Z": min(triton.next_power_of_2(at.Z), 128)}


def row_stride(rows: Tensor) -> int:
    """From row to row; 0 where one row serves for all."""
    return 0 if rows.shape[0] == 1 else rows.stride(0)


def result(x: Tensor, dtype: torch.dtype, copy: bool) -> Tensor:
    """Contiguous, in the dtype of the call; with `copy` in memory of its own."""
    return x.to(dtype, memory_format=torch.contiguous_format, copy=copy)
