"""The second stage of the reductions: partial sums, which the programs of a first stage wrote, are added up.

    sums[r, k] = sum_n partials[r, n, k]

Partials are in the dtype that the sum is computed in (float32, or float64) and are rounded to the dtype of the result
here. Where one partial is the sum (N = 1) the first stage writes the result itself, and this one is not launched.

One program computes BLOCK_K sums of one row; reads R N K elements, writes R K. Every lane adds up its partials in
order, and then the lanes are added up as a tree of a fixed shape: no atomics, deterministic.
"""

import torch
import triton
import triton.language as tl

from .configs import config

MAX_BLOCK_K = 64


def rows_and_columns(columns: int, tile: int) -> tuple[int, int]:
    """Rows and columns of a first stage's tile: powers of two with product `tile`, set by the length of a row alone.

    Short rows share a program, so that no lane stays idle; a row longer than a tile takes several programs.
    """
    block = min(triton.next_power_of_2(max(columns, 1)), tile)
    return tile // block, block


def partials(like: torch.Tensor, rows: int, count: int) -> torch.Tensor:
    """Memory for `count` partial sums per row; that of the result (rows, 1) itself, in its dtype, for one."""
    dtype = like.dtype if count == 1 or like.dtype == torch.float64 else torch.float32
    return like.new_empty(rows, count, dtype=dtype)


@triton.jit
def sum_partials_kernel(
    # output (R, K), input (R, N, K), contiguous
    sums_ptr, partials_ptr,
    # sizes
    N, K,
    # tile
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0).to(tl.int64)
    blocks_k = tl.cdiv(K, BLOCK_K)
    row = pid // blocks_k
    offs_n = tl.arange(0, BLOCK_N)[:, None]
    offs_k = (pid % blocks_k) * BLOCK_K + tl.arange(0, BLOCK_K)[None, :]

    total = tl.zeros((BLOCK_N, BLOCK_K), partials_ptr.dtype.element_ty)
    for first in range(0, N, BLOCK_N):
        offs = (row * N + first + offs_n) * K + offs_k
        total += tl.load(partials_ptr + offs, mask=(first + offs_n < N) & (offs_k < K), other=0.0)
    result = tl.sum(total, axis=0, keep_dims=True)
    tl.store(sums_ptr + row * K + offs_k, result.to(sums_ptr.dtype.element_ty), mask=offs_k < K)


def sum_partials(partials: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Launch the second stage where there is work for it: (R, N, K), contiguous -> (R, K) of the dtype `dtype`."""
    R, N, K = partials.shape
    if N == 1 and partials.dtype == dtype:
        return partials.view(R, K)
    sums = partials.new_empty(R, K, dtype=dtype)
    if sums.numel() == 0:
        return sums
    launch = config("sums", partials.device)
    block_k = min(triton.next_power_of_2(K), MAX_BLOCK_K)
    block_n = min(triton.next_power_of_2(max(N, 1)), launch.pop("TILE") // block_k)
    with torch.cuda.device_of(sums):
        sum_partials_kernel[(R * triton.cdiv(K, block_k),)](
            sums, partials, N, K, BLOCK_N=block_n, BLOCK_K=block_k, **launch
        )
    return sums
