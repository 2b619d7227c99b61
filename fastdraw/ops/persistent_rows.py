"""The rows of the persistent rollouts: where what a pass keeps of every step lies, and the weights' gradients from it.

A row is that of a sample and a state, before the first step or after one, or of a sample and a step.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from ..kernels.rollout_layout import Sizes, padded


class Part(NamedTuple):
    """A part of what a pass keeps: columns, and whether it is multiplied."""

    columns: int
    multiplied: bool = False

    def width(self, bfloat16: bool) -> int:
        """In elements of float32; multiplied parts have an even number of columns."""
        return self.columns // 2 if self.multiplied and bfloat16 else self.columns


EXCHANGED = ("x", "zy", "h_enc", "h_dec", "heads")  # kept of two steps in turn where no backward pass will come


def parts(at: Sizes) -> dict[str, Part]:
    """Of what the forward pass keeps, in the order of `RolloutRecord` (csrc/cuda/rollout.h)."""
    encoder = int(at.encoder)
    return {
        "x": Part(padded(at.glimpse), True),
        "zy": Part(padded(at.Z + at.D), True),
        "h_enc": Part(encoder * padded(at.U), True),
        "h_dec": Part(padded(at.U), True),
        "heads": Part(sum(heads(at).values())),
        "gates_enc": Part(encoder * 4 * at.U),
        "gates_dec": Part(4 * at.U),
        "c_enc": Part(encoder * at.U),
        "c_dec": Part(at.U),
        "posterior": Part(encoder * 2 * at.Z),
        "prior": Part(2 * at.Z),
        "canvas": Part(at.pixels),
    }


def heads(at: Sizes) -> dict[str, int]:
    """Columns of what a state of the decoder makes for the blocks that own the samples, by the weight."""
    found = {"align_query": at.A, "read_window": at.read_window, "patch": at.patch, "write_window": at.write_window}
    return {name: columns for name, columns in found.items() if columns}


def row_width(at: Sizes, bfloat16: bool, names: Iterable[str]) -> int:
    """Of the named parts together, in elements of float32."""
    return sum(part.width(bfloat16) for name, part in parts(at).items() if name in names)


def saved_shape(at: Sizes, bfloat16: bool) -> tuple[int, int]:
    """Of what the forward pass keeps: a row for every sample and state."""
    return (at.T + 1) * at.B, row_width(at, bfloat16, parts(at))


def lay_out(memory: Tensor, at: Sizes, bfloat16: bool, names: Iterable[str]) -> dict[str, Tensor]:
    """The named parts (rows, columns), one after the other, in float32 memory (rows, width)."""
    rows, of = memory.shape[0], {name: part for name, part in parts(at).items() if name in names}
    split = memory.flatten().split([rows * part.width(bfloat16) for part in of.values()])
    return {
        name: x.view(torch.bfloat16 if part.multiplied and bfloat16 else torch.float32).view(rows, part.columns)
        for (name, part), x in zip(of.items(), split, strict=True)
    }


def gradient_shapes(at: Sizes) -> dict[str, tuple[int, int]]:
    """Of the gradients of what products made, in the order of `RolloutBackward`."""
    states, steps, encoder = (at.T + 1) * at.B, at.T * at.B, int(at.encoder)
    return {
        "dheads": (states, padded(sum(heads(at).values()))),
        "dgates_enc": (encoder * steps, padded(4 * at.U)),
        "dgates_dec": (steps, padded(4 * at.U)),
        "dposterior": (encoder * steps, padded(2 * at.Z)),
        "dprior": (steps, padded(2 * at.Z)),
    }


def multiply(a: Tensor, b: Tensor, bfloat16: bool) -> Tensor:
    """a @ b in float32; with bfloat16 of operands that are rounded to it."""
    shape = *a.shape[:-1], b.shape[1]
    a = a.reshape(-1, a.shape[-1])
    if not bfloat16:
        return (a @ b).view(shape)
    if a.is_cuda:
        return torch.mm(a.bfloat16(), b.bfloat16(), out_dtype=torch.float32).view(shape)
    return (a.bfloat16().float() @ b.bfloat16().float()).view(shape)


def weight_gradients(
    at: Sizes, bfloat16: bool, record: dict[str, Tensor], made: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Of the weights that products multiply by, from all rows of what these took and of gradients of what they made."""
    U, steps, columns = at.U, at.T * at.B, heads(at)
    h_dec, h_enc = record["h_dec"][:, :U], record["h_enc"][:, :U]
    before, found = h_dec[:steps], {}

    def add(weight: str, bias: str | None, dmade: Tensor, *took: Tensor) -> None:
        found[weight] = torch.cat([multiply(dmade.T, x, bfloat16) for x in took], 1)
        if bias is not None:
            found[bias] = dmade.sum(0, dtype=torch.float32)

    # The heads of a state belong to two steps.
    add("heads", "heads_bias", made["dheads"][:, : sum(columns.values())], h_dec)
    for suffix in ("", "_bias"):
        split = found.pop("heads" + suffix).split(list(columns.values()))
        found |= {name + suffix: x.clone() for name, x in zip(columns, split, strict=True)}
    if at.A:
        found["align_bias"] = found.pop("align_query_bias")
    add("prior", "prior_bias", made["dprior"][:, : 2 * at.Z], before)
    dgates = made["dgates_dec"][:, : 4 * U]
    add("dec_ih", "dec_bias", dgates, record["zy"][:steps, : at.Z + at.D])
    add("dec_hh", None, dgates, before)
    if at.encoder:
        dgates = made["dgates_enc"][:, : 4 * U]
        add("enc_ih", "enc_bias", dgates, record["x"][:steps, : at.glimpse], before)
        add("enc_hh", None, dgates, h_enc[:steps])
        # The posterior was made from the state after the step.
        add("posterior", "posterior_bias", made["dposterior"][:, : 2 * at.Z], h_enc[at.B :])
    return found


def state_gradients(
    at: Sizes, bfloat16: bool, weights: dict[str, Tensor], made: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Of the states before the first step, which all samples share: summed up before they go through the weights."""

    def through(dmade: Tensor, *by: Tensor) -> Tensor:
        weight = torch.cat(by)
        weight = weight.bfloat16().float() if bfloat16 else weight
        return dmade[: at.B].sum(0, dtype=torch.float32)[: len(weight)] @ weight

    dh_dec = through(made["dheads"], *(weights[name] for name in heads(at)))
    dh_dec += through(made["dprior"], weights["prior"]) + through(made["dgates_dec"], weights["dec_hh"])
    if not at.encoder:
        return {"h0_dec": dh_dec}
    dgates = made["dgates_enc"]
    dh_dec += through(dgates, weights["enc_ih"][:, at.glimpse :])
    return {"h0_dec": dh_dec, "h0_enc": through(dgates, weights["enc_hh"])}
