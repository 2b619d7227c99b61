// Where the native ops are registered: torch.ops.fastdraw, or fastdraw_emulated in the build of the CUDA kernels for
// the host (csrc/cuda/block.h), which stands beside the other one.
#pragma once

#include <torch/csrc/stable/library.h>

#if defined(FASTDRAW_EMULATED)
#define FASTDRAW_NAMESPACE fastdraw_emulated
#define FASTDRAW_CUDA_KEY CPU
#else
#define FASTDRAW_NAMESPACE fastdraw
#define FASTDRAW_CUDA_KEY CUDA
#endif

// Macros that paste their arguments do not expand them first.
#define FASTDRAW_LIBRARY_OF(name, m) STABLE_TORCH_LIBRARY(name, m)
#define FASTDRAW_LIBRARY(m) FASTDRAW_LIBRARY_OF(FASTDRAW_NAMESPACE, m)
#define FASTDRAW_CUDA_LIBRARY_OF(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)
#define FASTDRAW_CUDA_LIBRARY(m) FASTDRAW_CUDA_LIBRARY_OF(FASTDRAW_NAMESPACE, FASTDRAW_CUDA_KEY, m)
// For ops that take no tensors.
#define FASTDRAW_ANYWHERE_LIBRARY(m) FASTDRAW_CUDA_LIBRARY_OF(FASTDRAW_NAMESPACE, CompositeExplicitAutograd, m)
