// What kernels are written in: blocks of threads that share loops and wait for each other after each.
//
//   block.each(n, body)        body(i) for i = 0..n-1, shared by the threads; all wait at its end
//   block.each_warp(n, body)   body(i, warp), shared by the warps, each of which has loops and sums of its own
//   block.each_of_all(n, body) body(i) for i = 0..n-1, one i per thread of the launch; nobody waits
//
// What lies between such loops is computed by every thread alike. A body may read what an earlier loop of the block has
// written, and never what another i of its own loop writes.
//
// A plain C++ compiler makes the same text a program of the host: loops run through all i, blocks run one after the
// other, or each in a thread of its own where they wait for each other. That is how arithmetic, indices and schedules
// are tested without a GPU. Loops can run in reverse there: results that differ then would be races on a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "index.h"

#if defined(__CUDACC__)
#define FASTDRAW_DEVICE __device__ __forceinline__
#define FASTDRAW_KERNEL(threads) __global__ void __launch_bounds__(threads, 1)
#define FASTDRAW_ARGUMENT __grid_constant__ const  // read where it is passed, even when indexed
#else
#define FASTDRAW_DEVICE inline
#define FASTDRAW_KERNEL(threads) void
#define FASTDRAW_ARGUMENT const
#endif

namespace fastdraw {

constexpr int kWarp = 32;

#if !defined(__CUDACC__)
// Which block of a launch the thread of the host is at.
struct Here {
  int64_t index = 0, count = 1;
  int threads = 1;
  std::byte* shared = nullptr;
};
extern thread_local Here here;
extern bool in_reverse;
#endif

// A pointer to shared memory. One that is loaded from memory may point anywhere, for all that a compiler knows, and
// accesses through it are slower; this one is known to point there.
template <typename T>
class Shared {
#if defined(__CUDA_ARCH__)
  unsigned address_;

 public:
  __device__ __forceinline__ Shared(T* to) : address_(static_cast<unsigned>(__cvta_generic_to_shared(to))) {}
  __device__ __forceinline__ operator T*() const { return static_cast<T*>(__cvta_shared_to_generic(address_)); }
#else
  T* to_;

 public:
  Shared(T* to) : to_(to) {}
  operator T*() const { return to_; }
#endif
  Shared() = default;
};

// Memory of one kind parted among arrays, each of which starts at a multiple of 16 bytes. With no memory it counts.
class Arena {
  std::byte* base_;
  size_t used_ = 0;

 public:
  FASTDRAW_HD explicit Arena(std::byte* base = nullptr) : base_(base) {}
  template <typename T>
  FASTDRAW_HD T* take(int64_t elements) {
#if defined(__CUDA_ARCH__)
    std::byte* const from = base_ + used_;  // a test for null would hide that the memory is shared, and slow it down
#else
    std::byte* const from = base_ == nullptr ? nullptr : base_ + used_;
#endif
    used_ += static_cast<size_t>(round_up(elements * static_cast<int64_t>(sizeof(T)), 16));
    return reinterpret_cast<T*>(from);
  }
  FASTDRAW_HD size_t used() const { return used_; }
};

class Warp {
 public:
  template <typename Body>
  FASTDRAW_DEVICE void each(int n, const Body& body) const {
#if defined(__CUDACC__)
    for (int i = lane(); i < n; i += kWarp) body(i);
    __syncwarp();
#else
    for (int i = 0; i < n; ++i) body(in_reverse ? n - 1 - i : i);
#endif
  }

  // The sum of term(i) for i = 0..n-1, in one order, in every lane.
  template <typename Term>
  FASTDRAW_DEVICE auto sum(int n, const Term& term) const {
    using A = decltype(term(0));
#if defined(__CUDACC__)
    A total = 0;
    for (int i = lane(); i < n; i += kWarp) total += term(i);
#pragma unroll
    for (int apart = kWarp / 2; apart > 0; apart /= 2) total += __shfl_xor_sync(~0u, total, apart);
    return total;
#else
    A lanes[kWarp]{};
    for (int i = 0; i < n; ++i) lanes[i % kWarp] += term(i);
    for (int apart = kWarp / 2; apart > 0; apart /= 2) {
      for (int i = 0; i < apart; ++i) lanes[i] += lanes[i + apart];
    }
    return lanes[0];
#endif
  }

  // `kCount` sums at once: add(i, total) adds what i has to total[0..kCount-1].
  template <int kCount, typename A, typename Add>
  FASTDRAW_DEVICE void sums(int n, A (&total)[kCount], const Add& add) const {
#if defined(__CUDACC__)
    for (int k = 0; k < kCount; ++k) total[k] = 0;
    for (int i = lane(); i < n; i += kWarp) add(i, total);
#pragma unroll
    for (int apart = kWarp / 2; apart > 0; apart /= 2) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) total[k] += __shfl_xor_sync(~0u, total[k], apart);
    }
#else
    A lanes[kWarp][kCount]{};
    for (int i = 0; i < n; ++i) add(i, lanes[i % kWarp]);
    for (int apart = kWarp / 2; apart > 0; apart /= 2) {
      for (int i = 0; i < apart; ++i) {
        for (int k = 0; k < kCount; ++k) lanes[i][k] += lanes[i + apart][k];
      }
    }
    std::copy_n(lanes[0], kCount, total);
#endif
  }

  // The largest term(i), of at least one; NaN if one is.
  template <typename Term>
  FASTDRAW_DEVICE auto max(int n, const Term& term) const {
    using A = decltype(term(0));
    const auto larger = [](A a, A b) { return a > b || a != a ? a : b; };
#if defined(__CUDACC__)
    A most = term(0);
    for (int i = lane(); i < n; i += kWarp) most = larger(term(i), most);
    __syncwarp();  // all have read the first term, which a loop that follows may write
#pragma unroll
    for (int apart = kWarp / 2; apart > 0; apart /= 2) most = larger(__shfl_xor_sync(~0u, most, apart), most);
    return most;
#else
    A most = term(0);
    for (int i = 1; i < n; ++i) most = larger(term(i), most);
    return most;
#endif
  }

#if defined(__CUDACC__)
 private:
  __device__ static int lane() { return threadIdx.x % kWarp; }
#endif
};

class Block {
 public:
#if defined(__CUDACC__)
  FASTDRAW_DEVICE int64_t index() const { return blockIdx.x; }
  FASTDRAW_DEVICE int64_t count() const { return gridDim.x; }
  FASTDRAW_DEVICE void wait() const { __syncthreads(); }

  // The shared memory that the launch asked for, from so many bytes on.
  FASTDRAW_DEVICE Arena shared(size_t from = 0) const {
    extern __shared__ uint4 shared_memory[];
    return Arena(reinterpret_cast<std::byte*>(shared_memory) + from);
  }
#else
  int64_t index() const { return here.index; }
  int64_t count() const { return here.count; }
  void wait() const {}
  Arena shared(size_t from = 0) const { return Arena(here.shared + from); }
#endif

  template <typename Body>
  FASTDRAW_DEVICE void each(int n, const Body& body) const {
#if defined(__CUDACC__)
    for (int i = threadIdx.x; i < n; i += blockDim.x) body(i);
    __syncthreads();
#else
    for (int i = 0; i < n; ++i) body(in_reverse ? n - 1 - i : i);
#endif
  }

  template <typename Body>
  FASTDRAW_DEVICE void each_of_all(int64_t n, const Body& body) const {
#if defined(__CUDACC__)
    const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (i < n) body(i);
#else
    const int64_t first = here.index * here.threads;
    for (int64_t i = first; i < std::min(first + here.threads, n); ++i) body(i);
#endif
  }

  template <typename Body>
  FASTDRAW_DEVICE void each_warp(int n, const Body& body) const {
#if defined(__CUDACC__)
    for (int i = threadIdx.x / kWarp; i < n; i += blockDim.x / kWarp) body(i, Warp());
    __syncthreads();
#else
    for (int i = 0; i < n; ++i) body(in_reverse ? n - 1 - i : i, Warp());
#endif
  }
};

}  // namespace fastdraw
