"""Where the numbers of a rollout lie on a GPU: weights side by side, the columns they make, the rows that are kept.

Everything that depends on one vector is one product with weights side by side. A state carries a column of ones after
its U units, so that biases are a column of the weights and their gradients a column of the weights' gradients.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..reference.rollout import DrawWeights

Tensor = torch.Tensor
Optional = torch.Tensor | None


class Call(NamedTuple):
    """The flat arguments of the torch ops by name; n_read and n_write are 0 for whole images."""

    noise: Tensor
    image: Optional
    labels: Optional
    lengths: Optional
    steps: Optional
    weights: DrawWeights
    n_read: int
    n_write: int
    tanh_prior: bool
    standard_first: bool
    log_variance: bool
    per_axis: bool
    eps: float
    bfloat16: bool
    frames: bool
    rest: tuple[Any, ...]  # saved_rows and saved_width forward; which gradients are wanted backward


def read_call(encoder: bool, arguments: Sequence[Any]) -> Call:
    """draw_rollout's arguments, or draw_generate's, which has no encoder."""
    left = iter(arguments)

    def take(count: int) -> list[Any]:
        return [next(left) for _ in range(count)]

    noise, image = next(left), next(left) if encoder else None
    labels, lengths, steps = take(3)
    weights = DrawWeights(*take(len(DrawWeights._fields)))
    n_read = next(left) if encoder else 0
    n_write, *options = take(7)
    frames = False if encoder else next(left)
    return Call(noise, image, labels, lengths, steps, weights, n_read, n_write, *options, frames, tuple(left))


class Sizes(NamedTuple):
    """All that the layout depends on; L, D and A are 0 without labels."""

    T: int
    B: int
    C: int
    H: int
    W: int
    L: int
    D: int
    A: int
    U: int
    Z: int
    n_read: int
    n_write: int
    encoder: bool

    @property
    def pixels(self) -> int:
        return self.C * self.H * self.W

    @property
    def glimpse(self) -> int:
        """Width of what the encoder sees."""
        return 2 * (self.C * self.n_read**2 if self.n_read else self.pixels) if self.encoder else 0

    @property
    def patch(self) -> int:
        return self.C * self.n_write**2 if self.n_write else self.pixels

    @property
    def read_window(self) -> int:
        return 5 if self.encoder and self.n_read else 0

    @property
    def write_window(self) -> int:
        return 5 if self.n_write else 0


def sizes_of(call: Call) -> Sizes:
    (T, B, Z), (C, H, W) = call.noise.shape, call.weights.canvas0.shape
    L, D, A = (0, 0, 0) if call.labels is None else (*call.labels.shape[1:], call.weights.align_v.shape[0])
    U = call.weights.dec_hh.shape[1]
    return Sizes(T, B, C, H, W, L, D, A, U, Z, call.n_read, call.n_write, call.image is not None)


def padded(width: int) -> int:
    """Whole vectors for any dtype: loads of 16 bytes, and rows that cuBLAS takes as aligned."""
    return -(-width // 16) * 16


class Columns(NamedTuple):
    """First columns of what a state of the decoder makes, and of what one of the encoder makes."""

    # The patch, at 0, and its window, which the step before writes; then what the next step starts from.
    write_window: int
    query: int
    read_window: int
    prior: int
    enc: int  # the gates' part
    dec: int
    from_dec: int  # columns in all
    # The posterior, at 0.
    enc_next: int  # the part of the next step's gates
    from_enc: int


def columns_of(at: Sizes) -> Columns:
    gates = padded(4 * at.U)
    write_window = padded(at.patch)
    query = write_window + padded(at.write_window)
    read_window = query + padded(at.A)
    prior = read_window + padded(at.read_window)
    enc = prior + padded(2 * at.Z)
    dec = enc + (gates if at.encoder else 0)
    enc_next = padded(2 * at.Z)
    return Columns(write_window, query, read_window, prior, enc, dec, dec + gates, enc_next, enc_next + gates)


class Block(NamedTuple):
    """`inputs` columns of a weight from column `first` on, at (row, 0) of a matrix."""

    weight: str
    first: int
    inputs: int
    row: int


class Matrix(NamedTuple):
    """Weights side by side (rows, columns); its transpose multiplies from the right. Biases stand in column `ones`."""

    rows: int
    columns: int
    blocks: tuple[Block, ...]
    biases: tuple[tuple[str, int], ...] = ()  # weight and row
    ones: int = 0


def matrices_of(at: Sizes) -> dict[str, Matrix]:
    """Which weight stands where is said here and nowhere else."""
    to, gates, state = columns_of(at), padded(4 * at.U), padded(at.U + 1)
    blocks = [Block("patch", 0, at.U, 0), Block("prior", 0, at.U, to.prior), Block("dec_hh", 0, at.U, to.dec)]
    biases = [("patch_bias", 0), ("prior_bias", to.prior), ("dec_bias", to.dec)]
    if at.write_window:
        blocks.append(Block("write_window", 0, at.U, to.write_window))
        biases.append(("write_window_bias", to.write_window))
    if at.L:
        blocks.append(Block("align_query", 0, at.U, to.query))
        biases.append(("align_bias", to.query))
    if at.read_window:
        blocks.append(Block("read_window", 0, at.U, to.read_window))
        biases.append(("read_window_bias", to.read_window))
    found = {"zy": Matrix(gates, padded(at.Z + at.D), (Block("dec_ih", 0, at.Z + at.D, 0),))}
    if at.encoder:
        blocks.append(Block("enc_ih", at.glimpse, at.U, to.enc))
        biases.append(("enc_bias", to.enc))
        found["x"] = Matrix(gates, padded(at.glimpse), (Block("enc_ih", 0, at.glimpse, 0),))
        from_enc = (Block("posterior", 0, at.U, 0), Block("enc_hh", 0, at.U, to.enc_next))
        found["enc"] = Matrix(to.from_enc, state, from_enc, (("posterior_bias", 0),), at.U)
    found["dec"] = Matrix(to.from_dec, state, tuple(blocks), tuple(biases), at.U)
    return found


def weight_shapes(at: Sizes) -> dict[str, tuple[int, ...]]:
    """Of every weight that the call has a use for."""
    U, gates, seen = at.U, 4 * at.U, at.glimpse + at.U
    shapes: dict[str, tuple[int, ...]] = {
        "prior": (2 * at.Z, U), "prior_bias": (2 * at.Z,), "patch": (at.patch, U), "patch_bias": (at.patch,),
        "dec_ih": (gates, at.Z + at.D), "dec_hh": (gates, U), "dec_bias": (gates,),
        "h0_dec": (U,), "canvas0": (at.C, at.H, at.W),
    }  # fmt: skip
    if at.L:
        shapes |= {"align_query": (at.A, U), "align_bias": (at.A,), "align_key": (at.A, at.D), "align_v": (at.A,)}
    if at.read_window:
        shapes |= {"read_window": (5, U), "read_window_bias": (5,)}
    if at.write_window:
        shapes |= {"write_window": (5, U), "write_window_bias": (5,)}
    if at.encoder:
        shapes |= {"enc_ih": (gates, seen), "enc_hh": (gates, U), "enc_bias": (gates,), "h0_enc": (U,)}
        shapes |= {"posterior": (2 * at.Z, U), "posterior_bias": (2 * at.Z,)}
    return shapes


def pack(matrix: Matrix, weights: DrawWeights, packed: Tensor) -> None:
    """Put the weights of a matrix side by side into memory that is zero between them."""
    for name, first, inputs, row in matrix.blocks:
        weight = getattr(weights, name)
        packed[row : row + weight.shape[0], :inputs].copy_(weight[:, first : first + inputs])
    for name, row in matrix.biases:
        bias = getattr(weights, name)
        packed[row : row + bias.shape[0], matrix.ones].copy_(bias)


def unpack(matrix: Matrix, gradient: Tensor, gradients: dict[str, Tensor]) -> None:
    """The reverse of `pack` for a gradient, into tensors of the weights' shapes."""
    for name, first, inputs, row in matrix.blocks:
        weight = gradients[name]
        weight[:, first : first + inputs].copy_(gradient[row : row + weight.shape[0], :inputs])
    for name, row in matrix.biases:
        bias = gradients[name]
        bias.copy_(gradient[row : row + bias.shape[0], matrix.ones])


class Spec(NamedTuple):
    """All of a call but its numbers: calls with the same one run the same kernels on memory laid out alike."""

    at: Sizes
    dtype: torch.dtype
    device: torch.device
    lengths: torch.dtype | None
    steps: torch.dtype | None
    tanh_prior: bool
    standard_first: bool
    log_variance: bool
    per_axis: bool
    eps: float
    bfloat16: bool
    frames: bool

    @property
    def compute(self) -> torch.dtype:
        """Of what is carried and summed up: float64 for float64, float32 for all others."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32

    @property
    def product(self) -> torch.dtype:
        """Of what is multiplied: bfloat16 where that is allowed. Triton's interpreter has none: `multiply` rounds."""
        return torch.bfloat16 if self.bfloat16 and self.device.type == "cuda" else self.compute


def spec_of(call: Call) -> Spec:
    lengths, steps = (None if x is None else x.dtype for x in (call.lengths, call.steps))
    return Spec(sizes_of(call), call.noise.dtype, call.noise.device, lengths, steps, *call[8:15])


class Record(NamedTuple):
    """What the steps leave for the backward pass, each (rows, width); None without an encoder or a window."""

    h_dec: Tensor
    zy: Tensor  # z, then the context of the labels
    c_dec: Tensor
    canvas: Tensor
    write_window: Optional
    h_enc: Optional
    x: Optional  # what the encoder sees
    c_enc: Optional
    read_window: Optional


def record_widths(spec: Spec) -> tuple[int, ...]:
    """Of each part, in elements of the compute dtype."""
    at, state = spec.at, padded(spec.at.U + 1)
    multiplied = tuple(
        width * spec.product.itemsize // spec.compute.itemsize
        for width in (state, padded(at.Z + at.D), state * at.encoder, padded(at.glimpse))
    )
    h_dec, zy, h_enc, x = multiplied
    windows = padded(at.write_window), padded(at.read_window)
    return h_dec, zy, padded(at.U), padded(at.pixels), windows[0], h_enc, x, padded(at.U) * at.encoder, windows[1]


def saved_width(encoder: bool, arguments: Sequence[Any]) -> int:
    """Elements of a row of all parts together, for the forward op's arguments."""
    return sum(record_widths(spec_of(read_call(encoder, arguments))))


def lay_out(saved: Tensor, spec: Spec) -> Record:
    """The parts of memory of as many elements as `rows` x the sum of the widths: one after the other."""
    widths = record_widths(spec)
    rows = saved.numel() // sum(widths)
    parts = saved.flatten().split([rows * width for width in widths])

    def part(name: str, width: int, x: Tensor) -> Optional:
        multiplied = name in ("h_dec", "zy", "h_enc", "x")
        return x.view(spec.product if multiplied else spec.compute).view(rows, -1) if width else None

    return Record(*map(part, Record._fields, widths, parts))


def multiply(a: Tensor, b: Tensor, out: Tensor, bfloat16: bool) -> None:
    """out = a @ b, summed up in out's dtype; with bfloat16 of operands that are rounded to it."""
    if a.dtype != out.dtype:
        torch.mm(a, b, out_dtype=out.dtype, out=out)
    elif bfloat16:
        torch.mm(a.bfloat16().to(a.dtype), b.bfloat16().to(b.dtype), out=out)
    else:
        torch.mm(a, b, out=out)
