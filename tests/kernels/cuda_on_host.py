"""The CUDA kernels compiled for the host and run there, thread after thread: arithmetic and indices without a GPU.

It serves kernels whose threads do not wait for each other.
"""

import ctypes
import functools
import re
from pathlib import Path

import torch

from fastdraw.kernels.compile import ROOT, nvcc, run

CTYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bfloat16: "__nv_bfloat16",
    torch.float16: "__half",
}
PROLOGUE = """
#include <math.h>
#include <cuda_runtime_api.h>
#include <vector_types.h>
#define __launch_bounds__(...)
static uint3 blockIdx, threadIdx;
template <typename Kernel, typename... Arguments>
void run_all_threads(unsigned blocks, unsigned threads, int, cudaStream_t, Kernel kernel, Arguments... arguments) {
  for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernel(arguments...);
}
"""
EXPORT = """
extern "C" void fwd_{T}({T}* h, {T}* c_next, {T}* gates, {T}* c, int64_t B, int64_t U) {{
  fastdraw::launch_lstm_gates_fwd<{T}>(h, c_next, gates, c, B, U, nullptr);
}}
extern "C" void bwd_{T}({T}* dgates, {T}* dc, {T}* dh, {T}* dc_next, {T}* gates, {T}* c, int64_t B, int64_t U) {{
  fastdraw::launch_lstm_gates_bwd<{T}>(dgates, dc, dh, dc_next, gates, c, B, U, nullptr);
}}
"""


@functools.cache
def lstm_library(folder: Path) -> ctypes.CDLL:
    """csrc/cuda/lstm.cu as a library of the host."""
    source = (ROOT / "csrc" / "cuda" / "lstm.cu").read_text()
    launch = re.compile(r"(\w+_kernel<[^>]*>)\s*<<<(.*?)>>>\(", re.DOTALL)
    source = launch.sub(r"run_all_threads(\2, \1, ", source)
    (folder / "lstm.cpp").write_text(PROLOGUE + source + "".join(EXPORT.format(T=T) for T in CTYPES.values()))
    includes = [f"-I{path}" for path in (ROOT / "csrc", ROOT / "csrc" / "cuda", Path(nvcc()).parent.parent / "include")]
    # A GPU stops at an access that is not aligned; the host shall too.
    sanitizer = ["-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    flags = ["-std=c++20", "-O1", "-w", "-shared", "-fPIC", *sanitizer, *includes]
    run("c++", *flags, "-o", f"{folder}/lstm.so", f"{folder}/lstm.cpp")
    return ctypes.CDLL(str(folder / "lstm.so"))


def lstm_launchers(folder: Path):
    """The pair (forward, backward), with the arguments of the torch ops."""
    library = lstm_library(folder)

    def call(name, outputs, inputs):
        inputs = [x.contiguous() for x in inputs]
        B, U = inputs[-1].shape
        pointers = [ctypes.c_void_p(x.data_ptr()) for x in (*outputs, *inputs)]
        getattr(library, f"{name}_{CTYPES[inputs[0].dtype]}")(*pointers, ctypes.c_int64(B), ctypes.c_int64(U))
        return outputs

    def forward(gates, c):
        return call("fwd", (c.new_empty(c.shape), c.new_empty(c.shape)), (gates, c))

    def backward(dh, dc_next, gates, c):
        return call("bwd", (c.new_empty(gates.shape), c.new_empty(c.shape)), (dh, dc_next, gates, c))

    return forward, backward
