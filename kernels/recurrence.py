"""What both passes of a rollout know of a call: inputs in the compute dtype, weights side by side, first states."""

from typing import Any

import torch
import triton

from .attention import blocks as attention_blocks
from .configs import config
from .glimpse import glimpse_launch
from .rollout_layout import Call, Tensor, columns_of, dtypes_of, matrices_of, multiply, pack, sizes_of


class Recurrence:
    """Of one call, on its device."""

    def __init__(self, call: Call):
        self.at, self.dtypes, self.call = sizes_of(call), dtypes_of(call), call
        self.to, self.matrices = columns_of(self.at), matrices_of(self.at)
        compute = self.dtypes.compute
        self.noise, self.image, self.labels = (
            None if x is None else x.to(compute).contiguous() for x in (call.noise, call.image, call.labels)
        )
        self.packed = {name: pack(matrix, call.weights, self.dtypes.product) for name, matrix in self.matrices.items()}
        weights = call.weights
        self.canvas0 = weights.canvas0.to(compute).reshape(1, -1)
        self.no_cell = self.noise.new_zeros(1, self.at.U)
        self.first_dec = self.state(weights.h0_dec)
        self.first_enc = self.state(weights.h0_enc) if self.at.encoder else self.first_dec
        # What the first states make is one row for all samples.
        self.from_first_dec = self.empty(1, self.to.from_dec)
        self.multiply(self.first_dec, "dec", self.from_first_dec)
        self.from_first_enc = self.empty(1, self.to.from_enc)
        if self.at.encoder:
            self.multiply(self.first_enc, "enc", self.from_first_enc)
        if self.at.L:
            self.align_v = weights.align_v.to(compute).contiguous()
            self.keys = self.empty(self.at.B * self.at.L, self.at.A)
            multiply(self.labels.flatten(0, 1), weights.align_key.to(compute).T, self.keys, call.bfloat16)
        self.steps, self.lengths = (None if x is None else x.contiguous() for x in (call.steps, call.lengths))

    def empty(self, *shape: int, multiplied: bool = False) -> Tensor:
        return self.noise.new_empty(shape, dtype=self.dtypes.product if multiplied else self.dtypes.compute)

    def state(self, h0: Tensor) -> Tensor:
        """A first state (1, .) with its column of ones."""
        state = self.noise.new_zeros(1, self.matrices["dec"].columns, dtype=self.dtypes.product)
        state[0, : self.at.U].copy_(h0)
        state[0, self.at.U] = 1.0
        return state

    def multiply(self, a: Tensor, name: str, out: Tensor) -> None:
        multiply(a, self.packed[name].T, out, self.call.bfloat16)

    @property
    def options(self) -> dict[str, bool]:
        """Of the kernels that make prior and posterior."""
        call = self.call
        return {
            "TANH": call.tanh_prior, "STANDARD_FIRST": call.standard_first, "LOG_VARIANCE": call.log_variance,
            "ENCODER": self.at.encoder, "LABELS": self.at.L > 0, "HAS_LENGTHS": self.lengths is not None,
            "HAS_STEPS": self.steps is not None,
        }  # fmt: skip

    def look_launch(self) -> dict[str, Any]:
        """Constants and tiles of the kernels with windows."""
        at, call = self.at, self.call
        launch = glimpse_launch(self.noise, max(at.n_read, at.n_write, 1))
        del launch["BLOCK_N"]
        if call.bfloat16:
            launch["PRECISION"] = "tf32"
        sides = {"N_WRITE": at.n_write, "N_READ": at.n_read}
        tiles = {f"BLOCK_N{key[2]}": max(triton.next_power_of_2(n), 16) for key, n in sides.items()}
        windows = {"WRITE_WINDOW": self.to.write_window, "READ_WINDOW": self.to.read_window}
        return launch | sides | tiles | windows | {
            "HAS_STEPS": self.steps is not None, "PER_AXIS": call.per_axis, "EPS": call.eps,
            "HALF": call.noise.dtype == torch.float16, "BLOCK_P": 1024,
        }  # fmt: skip

    def settle_launch(self) -> dict[str, Any]:
        at, launch = self.at, config("attention", self.noise.device)
        tile = attention_blocks(max(at.L, 1), max(at.A, 1), max(at.D, 1), launch.pop("TILE"))
        return launch | tile | {"BLOCK_Z": min(triton.next_power_of_2(at.Z), 128)}


def row_stride(rows: Tensor) -> int:
    """From row to row; 0 where one row serves for all."""
    return 0 if rows.shape[0] == 1 else rows.stride(0)
