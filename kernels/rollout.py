"""The whole recurrence of (conditional) DRAW on a GPU, paper 000 eq. 3-20, forward. One step, in eight launches:

    from_dec = h_dec W             all that needs h_dec alone: patch and window of the step before, query, read window,
                                   prior, parts of all gates
    look                           canvas += write(patch, window);  x = read(image, error image, window)
    product = x W, cell            h_enc = LSTM(product + from_dec.enc + from_enc.enc)
    from_enc = h_enc W             posterior, and a part of the next step's gates
    settle                         z, the KL and the context y
    product = [z, y] W, cell       h_dec = LSTM(product + from_dec.dec)

Products are torch's. States, canvases and windows of all steps are kept for the backward pass, and only of two steps
where none will come; filters and gates never. Samples that stop early (`steps`) still have their rows in the products:
a step waits for the longest sample in any case.
"""

from typing import Any

import torch
import triton

from . import likelihood
from .attention import blocks as attention_blocks
from .configs import config
from .glimpse import glimpse_launch
from .lstm import block_shape, grid_size
from .rollout_layout import (
    Call,
    Tensor,
    columns_of,
    dtypes_of,
    lay_out,
    matrices_of,
    multiply,
    pack,
    read_call,
    record_widths,
    sizes_of,
)
from .rollout_step import cell_kernel, look_kernel, settle_kernel


class Rollout:
    """What both passes know of a call: its sizes, its inputs in the compute dtype, and the weights side by side."""

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


class Forward(Rollout):
    """The forward pass. With `keep` the record has rows for all steps."""

    def __init__(self, call: Call, keep: bool):
        super().__init__(call)
        at = self.at
        self.keep = keep
        width = sum(record_widths(at, self.dtypes))
        self.saved = self.empty((at.T if keep else min(at.T, 2)) * at.B, width)
        self.record = lay_out(self.saved, at, self.dtypes)
        self.from_dec = self.empty(at.B, self.to.from_dec)
        self.from_enc = self.empty(at.B, self.to.from_enc) if at.encoder else self.from_first_enc
        self.product = self.empty(at.B, self.matrices["zy"].rows)
        self.kl = self.empty(at.T, at.B) if at.encoder else self.noise
        self.frames = call.noise.new_empty(at.T, at.B, at.C, at.H, at.W) if call.frames else None

    def rows(self, part: Tensor | None, t: int) -> Tensor | None:
        """Rows of a part after step t."""
        if part is None:
            return None
        first = (t if self.keep else t % 2) * self.at.B
        return part[first : first + self.at.B]

    def run(self) -> None:
        from_dec, from_enc = self.from_first_dec, self.from_first_enc
        h_dec = c_dec = c_enc = None
        for t in range(self.at.T):
            if t > 0:
                from_dec = self.from_dec
                self.multiply(h_dec, "dec", from_dec)
            self.look(t, from_dec)
            if self.at.encoder:
                h_enc, before = self.rows(self.record.h_enc, t), self.no_cell if t == 0 else c_enc
                c_enc = self.rows(self.record.c_enc, t)
                self.multiply(self.rows(self.record.x, t), "x", self.product)
                self.cell(t, h_enc, c_enc, from_dec[:, self.to.enc :], from_enc[:, self.to.enc_next :], before)
                from_enc = self.from_enc
                self.multiply(h_enc, "enc", from_enc)
            self.settle(t, from_dec, from_enc)
            h_dec, before = self.rows(self.record.h_dec, t), self.no_cell if t == 0 else c_dec
            c_dec = self.rows(self.record.c_dec, t)
            self.multiply(self.rows(self.record.zy, t), "zy", self.product)
            self.cell(t, h_dec, c_dec, from_dec[:, self.to.dec :], None, before)
        self.multiply(h_dec, "dec", self.from_dec)
        self.look(self.at.T, self.from_dec)

    def look(self, t: int, from_dec: Tensor) -> None:
        """Write what step t - 1 drew, and read what step t sees."""
        at, record = self.at, self.record
        write, read = t > 0, at.encoder and t < at.T
        if not write and not read:
            return
        canvas = self.rows(record.canvas, max(t - 1, 0))
        before = self.canvas0 if t <= 1 else self.rows(record.canvas, t - 2)
        x = self.rows(record.x, t) if read else from_dec
        window = record.write_window if record.write_window is not None else record.read_window
        look_kernel[(at.B * at.C,)](
            canvas, self.rows(record.write_window, max(t - 1, 0)), self.rows(record.read_window, t), x,
            before if write else self.canvas0, from_dec, self.image if read else canvas, self.steps,
            t, at.C, at.H, at.W, canvas.stride(0), _stride(before), _stride(from_dec),
            0 if window is None else window.stride(0), x.stride(0),
            WRITE=write, READ=read, **self.look_launch(),
        )  # fmt: skip
        if write and self.frames is not None:
            self.frames[t - 1].copy_(canvas[:, : at.pixels].unflatten(1, (at.C, at.H, at.W)))

    def cell(self, t: int, h: Tensor, c: Tensor, from_dec: Tensor, from_enc: Tensor | None, before: Tensor) -> None:
        launch = config("lstm_gates", h.device)
        blocks = block_shape(h.shape[1], launch.pop("TILE"))
        cell_kernel[grid_size(self.at.B, h.shape[1], **blocks)](
            h, c, self.product, from_dec, from_enc, before, self.steps, t, self.at.B, self.at.U,
            h.stride(0), c.stride(0), self.product.stride(0), _stride(from_dec),
            0 if from_enc is None else _stride(from_enc), _stride(before),
            HAS_STEPS=self.steps is not None, **blocks, **launch,
        )  # fmt: skip

    def settle(self, t: int, from_dec: Tensor, from_enc: Tensor) -> None:
        at, to = self.at, self.to
        zy, launch = self.rows(self.record.zy, t), self.settle_launch()
        keys, labels, v = (self.keys, self.labels, self.align_v) if at.L else (None, None, None)
        settle_kernel[(triton.cdiv(at.B, launch["BLOCK_B"]),)](
            zy, self.kl, from_dec[:, to.prior :], from_enc, self.noise,
            from_dec[:, to.query :], keys, labels, v, self.lengths, self.steps,
            t, at.B, at.Z, at.L, at.A, at.D, zy.stride(0), _stride(from_dec), _stride(from_enc),
            **self.options, **launch,
        )  # fmt: skip

    def canvas(self) -> Tensor:
        """After the last step of each sample (B, C, H, W)."""
        canvas = self.rows(self.record.canvas, self.at.T - 1)[:, : self.at.pixels]
        return canvas.unflatten(1, (self.at.C, self.at.H, self.at.W))


def _stride(rows: Tensor) -> int:
    """From row to row; 0 where one row serves for all."""
    return 0 if rows.shape[0] == 1 else rows.stride(0)


def draw_rollout(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The torch op's flat arguments -> nll (B,), kl (T, B), canvas (B, C, H, W) and what the backward pass needs."""
    call = read_call(True, arguments)
    at, dtype = sizes_of(call), call.noise.dtype
    if at.B == 0:
        empty = call.noise.new_empty
        return empty(0), empty(at.T, 0), empty(0, at.C, at.H, at.W), _nothing_saved(call)
    with torch.cuda.device_of(call.noise):
        forward = Forward(call, keep=call.rest[0] != 0)
        forward.run()
        canvas = forward.canvas()
        nll = likelihood.bernoulli_nll(canvas, forward.image.view(canvas.shape))
    saved = forward.saved if forward.keep else _nothing_saved(call)
    return (
        nll.to(dtype),
        forward.kl.to(dtype),
        canvas.to(dtype, memory_format=torch.contiguous_format, copy=True),
        saved,
    )


def draw_generate(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The torch op's flat arguments -> canvas (B, C, H, W) or frames (T, B, C, H, W), and as `draw_rollout`."""
    call = read_call(False, arguments)
    at, dtype = sizes_of(call), call.noise.dtype
    if at.B == 0:
        shape = (at.T, 0, at.C, at.H, at.W) if call.frames else (0, at.C, at.H, at.W)
        return call.noise.new_empty(shape), _nothing_saved(call)
    with torch.cuda.device_of(call.noise):
        forward = Forward(call, keep=call.rest[0] != 0)
        forward.run()
        canvas = forward.canvas().to(dtype, memory_format=torch.contiguous_format, copy=True)
    return forward.frames if call.frames else canvas, forward.saved if forward.keep else _nothing_saved(call)


def _nothing_saved(call: Call) -> Tensor:
    rows, width = call.rest
    return call.noise.new_empty(0, width if rows else 0, dtype=dtypes_of(call).compute)
