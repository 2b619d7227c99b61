// How a kernel is started: on a stream of a GPU, or in the emulation on the host.
#pragma once

#include "cuda/block.h"

#if !defined(__CUDACC__)
#include <cstring>
#include <vector>
#endif

namespace fastdraw {

inline int64_t blocks_for(int64_t items, int threads) { return (items + threads - 1) / threads; }

// Runs `blocks` blocks of `threads` threads with `shared` bytes of shared memory each. No block is no launch. An error
// is left for cudaGetLastError.
template <typename... Parameters, typename... Arguments>
void launch(
    void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared, cudaStream_t stream,
    const Arguments&... arguments) {
  if (blocks == 0) return;  // an error on a GPU
#if defined(__CUDACC__)
  constexpr size_t kGranted = 48 << 10;  // more has to be asked for
  if (shared > kGranted &&
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)) !=
          cudaSuccess) {
    return;
  }
  kernel<<<static_cast<unsigned>(blocks), threads, shared, stream>>>(arguments...);
#else
  (void)stream;
  std::vector<uint64_t> memory(shared / sizeof(uint64_t) + 2);
  for (int64_t index = 0; index < blocks; ++index) {
    std::memset(memory.data(), 0xFF, memory.size() * sizeof(uint64_t));  // NaN, as no block knows what it will find
    here = {
        index, blocks, threads, reinterpret_cast<std::byte*>(round_up(reinterpret_cast<int64_t>(memory.data()), 16))};
    kernel(arguments...);
  }
#endif
}

}  // namespace fastdraw
