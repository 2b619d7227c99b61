"""The tables of docs/design/persistent-rollout.md, from the plans that the launches themselves take."""

from typing import NamedTuple

from fastdraw.kernels.rollout_layout import Sizes
from fastdraw.ops.persistent import Limits, plan

DEVICES = {"A100": Limits(108, 163 << 10), "H200": Limits(132, 227 << 10), "B200": Limits(148, 227 << 10)}
UNITS, BATCHES = (256, 400, 800), (1, 8, 32, 64, 128, 256)


def published(U: int, B: int) -> Sizes:
    """The published model (paper 000) with other U and B."""
    return Sizes(T=30, B=B, C=1, H=32, W=64, L=2, D=20, A=512, U=U, Z=100, n_read=8, n_write=8, encoder=True)


def residency() -> str:
    """Groups x blocks of a group, and KiB of shared memory of a block, forward and backward."""
    lines = [
        f"| GPU | U | products in | pass | {' | '.join(f'B = {B}' for B in BATCHES)} |",
        "|---|---|---|---|" + "---|" * len(BATCHES),
    ]
    for gpu, limits in DEVICES.items():
        for U in UNITS:
            for dtype in ("bfloat16", "float32"):
                for name in ("forward", "backward"):
                    cells = []
                    for B in BATCHES:
                        found = plan(published(U, B), dtype == "bfloat16", name == "backward", limits)
                        fits = f"{found.groups} x {found.blocks}, {found.shared >> 10}"
                        cells.append(fits if found.blocks else f"- ({found.shared >> 10})")
                    lines.append(f"| {gpu} | {U} | {dtype} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


class Level(NamedTuple):
    """What a group does between two barriers: of one sample, multiply-adds; numbers read by each block; written."""

    name: str
    products: int
    beside: int  # multiply-adds between arriving at the barrier and waiting there
    read: int  # by every block
    read_once: int  # by one block of the group
    written: int


def forward_levels(at: Sizes) -> list[Level]:
    heads = at.A + at.read_window + at.patch + at.write_window
    gates, state = 4 * at.U, at.U
    return [
        Level("heads", heads * state, (2 * at.Z + 2 * gates) * state, state, 0, heads),
        Level("look", 0, 0, 0, heads, at.glimpse + at.D),
        Level("encode", gates * at.glimpse, 0, at.glimpse, 0, state),
        Level("sample", 2 * at.Z * state, gates * state, state, 0, at.Z),
        Level("decode", gates * (at.Z + at.D), 0, at.Z + at.D, 0, state),
    ]


def backward_levels(at: Sizes) -> list[Level]:
    heads = at.A + at.read_window + at.patch + at.write_window
    gates, state, zy = 4 * at.U, at.U, at.Z + at.D
    return [
        Level("look", 0, 0, 0, at.glimpse + at.D, heads),
        Level("decode", heads * state, 0, heads, 0, gates),
        Level("sample", gates * zy, gates * state, gates, 0, 4 * at.Z + at.D),
        Level("encode", 2 * at.Z * state, 2 * at.Z * state, 4 * at.Z, 0, gates),
        Level("glimpse", gates * at.glimpse, 2 * gates * state, gates, 0, at.glimpse),
    ]


def levels() -> str:
    """Per level of a step at U = 400, B = 128 in bfloat16 on an H200."""
    at, limits = published(400, 128), DEVICES["H200"]
    lines = [
        "| pass | level | multiply-adds of a block | of these while others arrive | KiB that a block reads | "
        "MiB that all read |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in (("forward", forward_levels(at)), ("backward", backward_levels(at))):
        found = plan(at, True, name == "backward", limits)
        samples = at.B / found.groups
        for level in of:
            made, beside = ((x * samples / found.blocks / 1e3) for x in (level.products + level.beside, level.beside))
            # What is multiplied is exchanged in two bytes, what a sample's block looks at in four.
            read = level.read * samples * 2 + level.read_once * samples / found.blocks * 4
            lines.append(
                f"| {name} | {level.name} | {made:,.0f} k | {beside:,.0f} k | "
                f"{read / 1024:.1f} | {read * found.groups * found.blocks / 2**20:.2f} |"
            )
    return "\n".join(lines)
