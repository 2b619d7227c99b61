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

from collections.abc import Callable
from typing import Any

import torch
import triton

from . import graphs, likelihood
from .configs import config
from .lstm import block_shape, grid_size
from .recurrence import Recurrence, result, row_stride
from .rollout_bwd import draw_generate_bwd, draw_rollout_bwd
from .rollout_layout import Call, Spec, Tensor, lay_out, read_call, record_widths, sizes_of, spec_of
from .rollout_step import cell_kernel, look_kernel, settle_kernel

__all__ = ["draw_generate", "draw_generate_bwd", "draw_rollout", "draw_rollout_bwd"]


class Forward(Recurrence):
    """The forward pass. With `keep` the record has rows for all steps."""

    def __init__(self, spec: Spec, keep: bool):
        super().__init__(spec)
        at = spec.at
        self.keep = keep
        self.saved = self.empty((at.T if keep else min(at.T, 2)) * at.B, sum(record_widths(spec)))
        self.record = record = lay_out(self.saved, spec)
        windows = (record.write_window, 5), (record.read_window, 5)
        for part, used in ((record.c_dec, at.U), (record.c_enc, at.U), (record.canvas, at.pixels), *windows):
            if part is not None:
                part[:, used:] = 0.0  # what fills up the rows, where no kernel writes
        self.from_dec, self.from_enc = self.empty(at.B, self.to.from_dec), self.empty(at.B, self.to.from_enc)
        self.product = self.empty(at.B, self.matrices["zy"].rows)
        self.kl = self.empty(at.T, at.B)
        self.nll: Tensor | None = None
        self.frames = self.empty(at.T, at.B, at.C, at.H, at.W) if spec.frames else None

    def rows(self, part: Tensor | None, t: int) -> Tensor | None:
        """Rows of a part after step t."""
        if part is None:
            return None
        first = (t if self.keep else t % 2) * self.at.B
        return part[first : first + self.at.B]

    def run(self) -> None:
        self.start()
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
        if self.at.encoder:
            self.nll = likelihood.bernoulli_nll(self.canvas(), self.image)

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
            t, at.C, at.H, at.W, canvas.stride(0), row_stride(before), row_stride(from_dec),
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
            h.stride(0), c.stride(0), self.product.stride(0), row_stride(from_dec),
            0 if from_enc is None else row_stride(from_enc), row_stride(before),
            HAS_STEPS=self.steps is not None, **blocks, **launch,
        )  # fmt: skip

    def settle(self, t: int, from_dec: Tensor, from_enc: Tensor) -> None:
        at, to = self.at, self.to
        zy, launch = self.rows(self.record.zy, t), self.settle_launch()
        keys, labels, v = (self.keys, self.labels, self.align_v) if at.L else (None, None, None)
        settle_kernel[(triton.cdiv(at.B, launch["BLOCK_B"]),)](
            zy, self.kl, from_dec[:, to.prior :], from_enc, self.noise,
            from_dec[:, to.query :], keys, labels, v, self.lengths, self.steps,
            t, at.B, at.Z, at.L, at.A, at.D, zy.stride(0), row_stride(from_dec), row_stride(from_enc),
            **self.options, **launch,
        )  # fmt: skip

    def canvas(self) -> Tensor:
        """After the last step of each sample (B, C, H, W)."""
        canvas = self.rows(self.record.canvas, self.at.T - 1)[:, : self.at.pixels]
        return canvas.unflatten(1, (self.at.C, self.at.H, self.at.W))


def draw_rollout(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The torch op's flat arguments -> nll (B,), kl (T, B), canvas (B, C, H, W) and what the backward pass needs."""
    call = read_call(True, arguments)
    at, dtype = sizes_of(call), call.noise.dtype
    if at.B == 0:
        empty = call.noise.new_empty
        return empty(0), empty(at.T, 0), empty(0, at.C, at.H, at.W), _nothing_saved(call)

    def results(forward: Forward, stays: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        nll, kl = (result(x, dtype, stays) for x in (forward.nll, forward.kl))
        return nll, kl, result(forward.canvas(), dtype, True), _saved(forward, call, stays)

    return _run(call, results)


def draw_generate(*arguments: Any) -> tuple[Tensor, Tensor]:
    """The torch op's flat arguments -> canvas (B, C, H, W) or frames (T, B, C, H, W), and as `draw_rollout`."""
    call = read_call(False, arguments)
    at, dtype = sizes_of(call), call.noise.dtype
    if at.B == 0:
        shape = (at.T, 0, at.C, at.H, at.W) if call.frames else (0, at.C, at.H, at.W)
        return call.noise.new_empty(shape), _nothing_saved(call)

    def results(forward: Forward, stays: bool) -> tuple[Tensor, Tensor]:
        drawn = forward.frames if call.frames else forward.canvas()
        return result(drawn, dtype, True), _saved(forward, call, stays)

    return _run(call, results)


def _run(call: Call, results: Callable[[Forward, bool], Any]) -> Any:
    spec, keep = spec_of(call), call.rest[0] != 0
    kept = (-1, sum(record_widths(spec)))
    if keep and call.rest != kept:
        raise ValueError(f"saved_rows and saved_width must be 0, or {kept} here, got {call.rest}")
    with torch.cuda.device_of(call.noise):
        return graphs.run(
            spec, ("forward", keep), spec.device, lambda: Forward(spec, keep), lambda made: made.load(call), results
        )


def _saved(forward: Forward, call: Call, stays: bool) -> Tensor:
    if not forward.keep:
        return _nothing_saved(call)
    return forward.saved.clone() if stays else forward.saved


def _nothing_saved(call: Call) -> Tensor:
    rows, width = call.rest
    return call.noise.new_empty(0, width if rows else 0, dtype=spec_of(call).compute)
