"""Which GPU backend was measured to be the faster: the table that `python -m benchmarks.gpu.defaults` writes.

What is not in the table nobody has measured, and the safe choice of `fastdraw.dispatch` serves. A row counts on GPUs of
the compute capability that it was measured on.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

from .errors import FastdrawError

FILE = Path(__file__).parent / "defaults.json"


class Row(NamedTuple):
    op: str
    dtype: str  # that products multiply in
    first: int  # batch sizes, from `first` to `last`
    last: int | None  # None: and all above
    backend: str
    ratio: float  # time of triton over that of cuda, the least of all that was measured
    gpu: str
    capability: str
    commit: str

    def counts_for(self, dtype: str, batch: int) -> bool:
        return self.dtype == dtype and self.first <= batch and (self.last is None or batch <= self.last)

    def __str__(self) -> str:
        sizes = f"{self.first} or more" if self.last is None else f"{self.first} to {self.last}"
        return (
            f"{self.backend} for {self.dtype} and a batch of {sizes}: measured on {self.gpu}, "
            f"cuda is {self.ratio:.2f} x as fast as triton (commit {self.commit})"
        )


@cache
def table() -> tuple[Row, ...]:
    """All rows; read once.

    Raises:
        FastdrawError: the file is broken.
    """
    try:
        return tuple(Row(**row) for row in json.loads(FILE.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise FastdrawError(f"{FILE}, a part of fastdraw, is broken ({error}): install fastdraw again") from None


@cache
def rows(op: str, index: int | None = None) -> tuple[Row, ...]:
    """Those of an op that count on a GPU, by default the current one; none without a GPU, or on AMD's."""
    of_op = [row for row in table() if row.op == op]
    if not of_op or torch.version.hip is not None or not torch.cuda.is_available():
        return ()
    capability = "{}.{}".format(*torch.cuda.get_device_capability(index))
    return tuple(row for row in of_op if row.capability == capability)
