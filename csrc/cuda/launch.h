// How a kernel is started: on a stream of a GPU, or in the emulation on the host.
#pragma once

#include "cuda/block.h"

#if !defined(__CUDACC__)
#include <algorithm>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>
#endif

namespace fastdraw {

inline int64_t blocks_for(int64_t items, int threads) { return (items + threads - 1) / threads; }

#if defined(__CUDACC__)
// Whether the kernel may have so much shared memory; more than 48 KiB has to be asked for. It is always asked for all
// that the device has, for other threads may be about to launch the same kernel with more than this one needs.
template <typename Kernel>
bool grant_shared(Kernel kernel, size_t shared) {
  if (shared <= (48 << 10)) return true;
  int device = 0, most = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
      cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess &&
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most) == cudaSuccess;
}
#else
// Shared memory holds NaN at first, as no block knows what it will find, and so does what lies behind it at the end.
template <typename Body>
void run_block(int64_t index, int64_t blocks, int threads, size_t shared, const Body& body) {
  constexpr size_t kBehind = 1024;
  constexpr std::byte kUnwritten{0xFF};
  std::vector<std::byte> memory(shared + kBehind + 16, kUnwritten);
  std::byte* const first = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<int64_t>(memory.data()), 16));
  here = {index, blocks, threads, first};
  body();
  if (std::count(first + shared, first + shared + kBehind, kUnwritten) != int64_t{kBehind}) {
    throw std::runtime_error("a block wrote behind its shared memory");
  }
}
#endif

// Runs `blocks` blocks of `threads` threads with `shared` bytes of shared memory each. No block is no launch. An error
// is left for cudaGetLastError.
template <typename... Parameters, typename... Arguments>
void launch(
    void (*kernel)(Parameters...), int64_t blocks, int threads, size_t shared, cudaStream_t stream,
    const Arguments&... arguments) {
  if (blocks == 0) return;  // an error on a GPU
#if defined(__CUDACC__)
  if (!grant_shared(kernel, shared)) return;
  kernel<<<static_cast<unsigned>(blocks), threads, shared, stream>>>(arguments...);
#else
  (void)stream;
  for (int64_t index = 0; index < blocks; ++index) {
    run_block(index, blocks, threads, shared, [&] { kernel(arguments...); });
  }
#endif
}

// The same for blocks that wait for each other: all of them are resident at once, or the launch is refused with an
// error. On the host every block is a thread.
template <typename Argument>
void launch_cooperative(
    void (*kernel)(Argument), int64_t blocks, int threads, size_t shared, cudaStream_t stream, Argument argument) {
#if defined(__CUDACC__)
  if (!grant_shared(kernel, shared)) return;
  void* arguments[] = {&argument};
  cudaLaunchCooperativeKernel(
      reinterpret_cast<const void*>(kernel), dim3(static_cast<unsigned>(blocks)), dim3(threads), arguments, shared,
      stream);
#else
  (void)stream;
  std::exception_ptr failure;
  std::mutex lock;
  std::vector<std::thread> running;
  for (int64_t index = 0; index < blocks; ++index) {
    running.emplace_back([&, index] {
      try {
        run_block(index, blocks, threads, shared, [&] { kernel(argument); });
      } catch (...) {
        const std::lock_guard guard(lock);
        failure = std::current_exception();
      }
    });
  }
  for (std::thread& thread : running) thread.join();
  if (failure) std::rethrow_exception(failure);
#endif
}

}  // namespace fastdraw
