"""The rollouts backward. Steps are taken in reverse and mirror those of the forward pass, in eight launches:

    dh_dec = dfrom_dec(t + 1) W;   cell_bwd       dgates of the decoder
    d[z, y] = dgates W;            settle_bwd     dposterior, dprior, dquery
    dh_enc = dfrom_enc W;          cell_bwd       dgates of the encoder
    dx = dgates W;                 look_bwd       dwindows and dpatch, through the canvas

What the forward pass did not keep is made again for CHUNK steps at a time, as products with many rows: gates, query,
prior, posterior, patches. Gradients of weights are not summed up step by step: those of what they made are kept, and
one product over all samples and steps per matrix ends the pass.
"""

from typing import Any

import torch
import triton

from ..reference.rollout import DrawWeights
from . import graphs, likelihood
from .configs import config
from .lstm import block_shape, grid_size
from .recurrence import Recurrence, result, row_stride
from .rollout_layout import (
    Call,
    Spec,
    Tensor,
    lay_out,
    multiply,
    padded,
    read_call,
    record_widths,
    sizes_of,
    spec_of,
    unpack,
    weight_shapes,
)
from .rollout_step_bwd import cell_bwd_kernel, look_bwd_kernel, settle_bwd_kernel
from .sums import sum_partials

# Enough rows for products at full speed, and few of what is made again in memory at a time.
CHUNK = 8


class Backward(Recurrence):
    """wanted: whether the gradients of image, labels and noise are, in this order."""

    def __init__(self, spec: Spec, wanted: tuple[bool, bool, bool]):
        super().__init__(spec)
        at = spec.at
        self.saved = self.empty(at.T * at.B, sum(record_widths(spec)))
        self.record = lay_out(self.saved, spec)
        self.wanted = wanted
        self.dnll, self.dkl = (self.empty(at.B), self.empty(at.T, at.B)) if at.encoder else (None, None)
        self.dframes = self.empty(at.T, at.B, at.pixels) if spec.frames else None
        self.doutput = None if spec.frames else self.empty(at.B, at.pixels)
        self.found: list[Tensor] = []
        states, chunk = (at.T + 1) * at.B, min(CHUNK, at.T) * at.B
        # Gradients of what the states made; row 0 is of the first state. Zeros stay where no kernel writes.
        self.dfrom_dec = self.empty(states, self.to.from_dec, multiplied=True)
        self.dposterior = self.empty(at.T * at.B, padded(2 * at.Z) if at.encoder else 0, multiplied=True)
        self.dfrom_enc = self.empty(at.B, self.to.from_enc if at.encoder else 0, multiplied=True)
        # What is made again, for the steps of a chunk.
        gates = self.matrices["zy"].rows
        self.from_dec = self.empty(chunk + at.B, self.to.from_dec)
        self.dec_product = self.empty(chunk, gates)
        if at.encoder:
            self.from_enc, self.enc_product = self.empty(chunk + at.B, self.to.from_enc), self.empty(chunk, gates)
            self.dh_enc, self.dx = self.empty(at.B, self.matrices["enc"].columns), self.empty(at.B, padded(at.glimpse))
        self.dh_dec, self.dzy = (self.empty(at.B, self.matrices[name].columns) for name in ("dec", "zy"))
        self.dc_dec, self.dc_enc = self.empty(at.B, at.U), self.empty(at.B, at.U)
        self.dnoise = self.empty(at.T, at.B, at.Z) if wanted[2] else None
        self.dkeys, self.dlabels = self.empty(at.B, at.L, at.A), self.empty(at.B, at.L, at.D)
        self.dv = self.empty(at.B, at.A)
        self.dcanvas = self.empty(at.B, at.pixels)
        self.dimage = None

    def load_gradients(
        self, call: Call, saved: Tensor, dnll: Tensor | None, dkl: Tensor | None, doutput: Tensor
    ) -> None:
        """Copy in, beside the inputs, what the forward pass kept and the gradients of its outputs."""
        self.load(call)
        self.saved.copy_(saved)
        if self.at.encoder:
            self.dnll.copy_(dnll)
            self.dkl.copy_(dkl)
        to = self.doutput if self.dframes is None else self.dframes
        to.view(doutput.shape).copy_(doutput)

    def run(self) -> None:
        at = self.at
        self.start()
        for summed in (
            self.dfrom_dec, self.dposterior, self.dfrom_enc, self.dc_dec, self.dc_enc, self.dnoise,
            self.dkeys, self.dlabels, self.dv, self.dcanvas,
        ):  # fmt: skip
            if summed is not None:
                summed.zero_()
        if self.doutput is not None:
            self.dcanvas.copy_(self.doutput)
        if at.encoder:
            canvas = self.record.canvas[-at.B :, : at.pixels]
            dcanvas, dimage = likelihood.bernoulli_nll_bwd(self.dnll, canvas, self.image.flatten(1), self.wanted[0])
            self.dcanvas += dcanvas
            self.dimage = dimage if self.wanted[0] else None
        for last in range(at.T, 0, -CHUNK):
            first = max(last - CHUNK, 0)
            self.make_again(first, last)
            if last == at.T:
                self.look(at.T, first)
            for t in range(last - 1, first - 1, -1):
                self.step(t, first)
        self.found = [*self.input_gradients(), *self.weight_gradients()]

    def make_again(self, first: int, last: int) -> None:
        """What the states before steps first..last made, and what the steps' inputs add to the gates."""
        at, record = self.at, self.record
        if first == 0:
            self.from_dec[: at.B].copy_(self.from_first_dec.expand(at.B, -1))
        start = max(first - 1, 0) * at.B  # of the state after step first - 1, which kept rows begin with
        skipped = at.B if first == 0 else 0
        self.multiply(record.h_dec[start : last * at.B], "dec", self.from_dec[skipped : (last - first + 1) * at.B])
        steps = slice(first * at.B, last * at.B)
        self.multiply(record.zy[steps], "zy", self.dec_product[: (last - first) * at.B])
        if at.encoder:
            if first == 0:
                self.from_enc[: at.B].copy_(self.from_first_enc.expand(at.B, -1))
            self.multiply(record.h_enc[start : last * at.B], "enc", self.from_enc[skipped : (last - first + 1) * at.B])
            self.multiply(record.x[steps], "x", self.enc_product[: (last - first) * at.B])

    def rows(self, part: Tensor, t: int) -> Tensor:
        return part[t * self.at.B : (t + 1) * self.at.B]

    def step(self, t: int, first: int) -> None:
        to = self.to
        dstate = self.rows(self.dfrom_dec, t + 1)
        multiply(dstate, self.packed["dec"], self.dh_dec, self.spec.bfloat16)
        dbefore, from_dec = self.rows(self.dfrom_dec, t), self.rows(self.from_dec, t - first)
        dgates = dbefore[:, to.dec : to.dec + self.matrices["zy"].rows]
        cells = self.rows(self.record.c_dec, t - 1) if t > 0 else self.no_cell
        product = self.rows(self.dec_product, t - first)
        self.cell(t, dgates, None, self.dc_dec, self.dh_dec, product, from_dec[:, to.dec :], None, cells)
        multiply(dgates, self.packed["zy"], self.dzy, self.spec.bfloat16)
        self.settle(t, first)
        if self.at.encoder:
            multiply(self.dfrom_enc, self.packed["enc"], self.dh_enc, self.spec.bfloat16)
            dgates = dbefore[:, to.enc : to.enc + self.matrices["x"].rows]
            cells = self.rows(self.record.c_enc, t - 1) if t > 0 else self.no_cell
            product, from_enc = self.rows(self.enc_product, t - first), self.rows(self.from_enc, t - first)
            self.cell(
                t, dgates, self.dfrom_enc[:, to.enc_next :], self.dc_enc, self.dh_enc,
                product, from_dec[:, to.enc :], from_enc[:, to.enc_next :], cells,
            )  # fmt: skip
            multiply(dgates, self.packed["x"], self.dx, self.spec.bfloat16)
        self.look(t, first)

    def look(self, t: int, first: int) -> None:
        """What flows back through the read of step t and the write of the step before."""
        at, record = self.at, self.record
        write, read = t > 0, at.encoder and t < at.T
        if not write and not read:
            return
        canvas = self.rows(record.canvas, t - 1) if t > 0 else self.canvas0
        read_window = self.rows(record.read_window, t) if read and at.read_window else None
        write_window = self.rows(record.write_window, t - 1) if write and at.write_window else None
        dfrom_dec, from_dec = self.rows(self.dfrom_dec, t), self.rows(self.from_dec, t - first)
        look_bwd_kernel[(at.B,)](
            dfrom_dec, self.dcanvas, self.dimage,
            self.dx if read else None, self.image, canvas, None if self.dframes is None else self.dframes[t - 1],
            read_window, write_window, from_dec, self.steps,
            t, at.C, at.H, at.W, dfrom_dec.stride(0), self.dx.stride(0) if read else 0, row_stride(canvas),
            padded(5), from_dec.stride(0), WRITE=write, READ=read, NEED_DIMAGE=self.wanted[0], **self.look_launch(),
        )  # fmt: skip

    def cell(
        self, t: int, dgates: Tensor, dgates_too: Tensor | None, dc: Tensor, dh: Tensor, product: Tensor,
        from_dec: Tensor, from_enc: Tensor | None, before: Tensor,
    ) -> None:  # fmt: skip
        launch = config("lstm_gates", dh.device)
        blocks = block_shape(self.at.U, launch.pop("TILE"))
        cell_bwd_kernel[grid_size(self.at.B, self.at.U, **blocks)](
            dgates, dgates_too, dc, dh, product, from_dec, from_enc, before, self.steps,
            t, self.at.B, self.at.U, dgates.stride(0), 0 if dgates_too is None else dgates_too.stride(0),
            dh.stride(0), product.stride(0), from_dec.stride(0), 0 if from_enc is None else from_enc.stride(0),
            row_stride(before), HAS_STEPS=self.steps is not None, **blocks, **launch,
        )  # fmt: skip

    def settle(self, t: int, first: int) -> None:
        at, to, launch = self.at, self.to, self.settle_launch()
        dbefore, from_dec = self.rows(self.dfrom_dec, t), self.rows(self.from_dec, t - first)
        # The posterior was made from the encoder's state after the step.
        posterior, dposterior, dposterior_too = (
            (self.rows(self.from_enc, t - first + 1), self.rows(self.dposterior, t), self.dfrom_enc)
            if at.encoder
            else (from_dec, dbefore, dbefore)
        )
        labels = (self.keys, self.labels, self.align_v) if at.L else (None, None, None)
        gradients = (self.dkeys, self.dlabels, self.dv) if at.L else (None, None, None)
        settle_bwd_kernel[(triton.cdiv(at.B, launch["BLOCK_B"]),)](
            dbefore[:, to.prior :], dposterior, dposterior_too, self.dnoise, dbefore[:, to.query :], *gradients,
            self.dzy, self.dkl, from_dec[:, to.prior :], posterior, self.noise,
            from_dec[:, to.query :], *labels, self.lengths, self.steps,
            t, at.B, at.Z, at.L, at.A, at.D, dbefore.stride(0), dposterior.stride(0), dposterior_too.stride(0),
            self.dzy.stride(0), from_dec.stride(0), posterior.stride(0), **self.options, **launch,
        )  # fmt: skip

    def weight_gradients(self) -> list[Tensor]:
        """Of every weight, in the order of `DrawWeights`; empty for one that the call has no use for."""
        at, to, record = self.at, self.to, self.record
        gradients = {name: self.empty(*shape) for name, shape in weight_shapes(at).items()}
        dfirst = self.sum_rows(self.dfrom_dec[: at.B])
        later = self.dfrom_dec[at.B :]
        unpack(self.matrices["dec"], self.product_over_rows(later, record.h_dec, dfirst, self.first_dec), gradients)
        steps = self.dfrom_dec[: at.T * at.B]
        dgates = steps[:, to.dec : to.dec + self.matrices["zy"].rows]
        unpack(self.matrices["zy"], self.product_over_rows(dgates, record.zy), gradients)
        gradients["h0_dec"] = self.times(dfirst, "dec")[:, : at.U].reshape(-1)
        gradients["canvas0"] = self.sum_rows(self.dcanvas).view(at.C, at.H, at.W)
        if at.encoder:
            dgates = steps[:, to.enc : to.enc + self.matrices["x"].rows]
            unpack(self.matrices["x"], self.product_over_rows(dgates, record.x), gradients)
            dfirst = self.sum_rows(dgates[: at.B])
            enc = self.empty(to.from_enc, self.matrices["enc"].columns).zero_()
            enc[: self.dposterior.shape[1]] = self.product_over_rows(self.dposterior, record.h_enc)
            # The gates of a step come from the state of the step before.
            before = record.h_enc[: (at.T - 1) * at.B]
            enc[to.enc_next :] = self.product_over_rows(dgates[at.B :], before, dfirst, self.first_enc)
            unpack(self.matrices["enc"], enc, gradients)
            # Of the first state, the posterior saw nothing.
            dstate = self.empty(1, to.from_enc).zero_()
            dstate[:, to.enc_next :] = dfirst
            gradients["h0_enc"] = self.times(dstate, "enc")[:, : at.U].reshape(-1)
        if at.L:
            dkeys = self.dkeys.flatten(0, 1)
            gradients["align_v"] = self.sum_rows(self.dv).view(-1)
            align_key = self.empty(at.A, at.D)
            multiply(dkeys.T, self.labels, align_key, self.spec.bfloat16)
            gradients["align_key"] = align_key
        return [gradients.get(name, self.empty(0)) for name in DrawWeights._fields]

    def product_over_rows(
        self, dmade: Tensor, made_of: Tensor, dfirst: Tensor | None = None, first: Tensor | None = None
    ) -> Tensor:
        """dmade^T @ made_of, and what the first state adds, which is one row for all samples."""
        out = self.empty(dmade.shape[1], made_of.shape[1])
        multiply(dmade.T, made_of, out, self.spec.bfloat16)
        return out if dfirst is None else out.addr_(dfirst.view(-1), first.view(-1).to(out.dtype))

    def sum_rows(self, rows: Tensor) -> Tensor:
        """The sum (1, .) over samples."""
        return sum_partials(rows.to(self.spec.compute).contiguous()[None], self.spec.compute)

    def times(self, dmade: Tensor, name: str) -> Tensor:
        out = self.empty(1, self.matrices[name].columns)
        multiply(dmade.to(self.spec.product), self.packed[name], out, self.spec.bfloat16)
        return out

    def input_gradients(self) -> list[Tensor]:
        """Of image (with an encoder), labels and noise; empty where it is not wanted."""
        at, nothing = self.at, self.empty(0)
        image, labels, noise = nothing, nothing, nothing
        if self.wanted[0]:
            image = self.dimage.view(at.B, at.C, at.H, at.W)
        if self.wanted[1]:
            labels = self.empty(at.B * at.L, at.D)
            # Through the keys as well as through the values.
            multiply(self.dkeys.flatten(0, 1), self.align_key, labels, self.spec.bfloat16)
            labels = labels.view_as(self.dlabels) + self.dlabels
        if self.wanted[2]:
            noise = self.dnoise
        return [image, labels, noise] if at.encoder else [labels, noise]


def draw_rollout_bwd(dnll: Tensor, dkl: Tensor, dcanvas: Tensor, saved: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """Gradients of the outputs, what was saved, the flat arguments, what is wanted -> those of inputs and weights."""
    return _backward(read_call(True, arguments), saved, dnll, dkl, dcanvas)


def draw_generate_bwd(dcanvas: Tensor, saved: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    """As `draw_rollout_bwd`; the one output is the canvas, or the frames."""
    return _backward(read_call(False, arguments), saved, None, None, dcanvas)


def _backward(
    call: Call, saved: Tensor, dnll: Tensor | None, dkl: Tensor | None, doutput: Tensor
) -> tuple[Tensor, ...]:
    spec, noise = spec_of(call), call.noise
    wanted = call.rest if spec.at.encoder else (False, *call.rest)
    if spec.at.B == 0:
        return _of_no_samples(call, wanted)
    if saved.shape[0] == 0:
        raise ValueError("the backward of a rollout needs what the forward call saved: it had saved_rows = 0")
    # A copy would spread a single row over all, and convert.
    kept = (spec.at.T * spec.at.B, sum(record_widths(spec)))
    if saved.shape != kept or saved.dtype != spec.compute:
        came = f"{tuple(saved.shape)} in {saved.dtype}"
        raise ValueError(f"saved must have shape {kept} in {spec.compute}, as the forward call returned it, got {came}")
    with torch.cuda.device_of(noise):
        return graphs.run(
            spec,
            ("backward", wanted),
            spec.device,
            lambda: Backward(spec, wanted),
            lambda made: made.load_gradients(call, saved, dnll, dkl, doutput),
            lambda made, stays: tuple(result(x, noise.dtype, stays) for x in made.found),
        )


def _of_no_samples(call: Call, wanted: tuple[bool, ...]) -> tuple[Tensor, ...]:
    noise, inputs, at = call.noise, (call.image, call.labels, call.noise), sizes_of(call)
    used = weight_shapes(at)
    found = [torch.zeros_like(x) if want else noise.new_empty(0) for x, want in zip(inputs, wanted, strict=True)]
    return *found[0 if at.encoder else 1 :], *(
        torch.zeros_like(weight) if name in used else noise.new_empty(0)
        for name, weight in call.weights._asdict().items()
    )
