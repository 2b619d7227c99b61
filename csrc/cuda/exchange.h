// How the blocks of a group wait for each other and exchange rows, without leaving the kernel.
//
// What one block writes to global memory before it arrives at a barrier, every block reads after it has waited there,
// if it reads past its L1 cache: fetch(). All blocks of a launch are resident at once (launch_cooperative), so every
// wait ends; if one does not, a block that never came is an error in the schedule, and after kPatience the kernel ends
// with an error instead of spinning for ever.
#pragma once

#include "cuda/numbers.h"

#if !defined(__CUDACC__)
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#endif

namespace fastdraw {

#if !defined(FASTDRAW_PATIENCE)
#define FASTDRAW_PATIENCE 10'000'000'000  // nanoseconds, ten thousand times what a barrier takes; tests have less
#endif
constexpr int64_t kPatience = FASTDRAW_PATIENCE;

class GroupBarrier {
  unsigned* counter_;  // 0 before the launch
  unsigned blocks_, target_ = 0;

 public:
  FASTDRAW_DEVICE GroupBarrier(unsigned* counter, int blocks) : counter_(counter), blocks_(blocks) {}

  // What this block has written is there for those that wait. Work that needs nothing of theirs may follow.
  FASTDRAW_DEVICE void arrive(const Block& block) {
    target_ += blocks_;
#if defined(__CUDACC__)
    __syncthreads();
    // Releases what all threads wrote before they met. __threadfence() is of sequential consistency and waits longer.
    if (threadIdx.x == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter_) : "memory");
#else
    (void)block;
    std::atomic_ref(*counter_).fetch_add(1);
#endif
  }

  // Until all have arrived.
  FASTDRAW_DEVICE void wait(const Block& block) const {
#if defined(__CUDACC__)
    if (threadIdx.x == 0) {
      int64_t begin = 0;
      while (arrived() < target_) {
        int64_t now;
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
        begin = begin == 0 ? now : begin;
        if (now - begin > kPatience) __trap();
      }
    }
    __syncthreads();
#else
    (void)block;
    const auto begin = std::chrono::steady_clock::now();
    while (std::atomic_ref(*counter_).load() < target_) {
      std::this_thread::yield();
      if (std::chrono::steady_clock::now() - begin > std::chrono::nanoseconds(kPatience)) {
        throw std::runtime_error("a block never came to a barrier");
      }
    }
#endif
  }

  FASTDRAW_DEVICE void sync(const Block& block) {
    arrive(block);
    wait(block);
  }

#if defined(__CUDACC__)
 private:
  __device__ unsigned arrived() const {
    unsigned count;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(count) : "l"(counter_) : "memory");
    return count;
  }
#endif
};

// One number, or 16 bytes, that another block has written.
FASTDRAW_DEVICE float fetch(const float* from) {
#if defined(__CUDACC__)
  return __ldcg(from);
#else
  return *from;
#endif
}

FASTDRAW_DEVICE uint4 fetch(const uint4* from) {
#if defined(__CUDACC__)
  return __ldcg(from);
#else
  return *from;
#endif
}

// to (count) = from (count), for all threads to read.
FASTDRAW_DEVICE void fetch_row(const Block& block, const float* from, int count, float* to) {
  block.each(count, [&](int i) { to[i] = fetch(from + i); });
}

// Columns `first`..`first + inputs` of `samples` rows to shared memory, in rows of `stride`; first is a multiple of 16.
// What lies beyond the columns of a row up to whole tiles of 16, and beyond the samples up to whole tiles of 8, is 0.
// Rows lie `apart` elements apart, a multiple of 16, and hold whole vectors.
template <typename P>
FASTDRAW_DEVICE void stage(
    const Block& block, const P* rows, int64_t apart, int samples, int first, int inputs, P* to, int stride) {
  constexpr int kVector = 16 / sizeof(P);
  const int vectors = static_cast<int>(round_up(inputs, 16)) / kVector;
  const int all = static_cast<int>(round_up(samples, 8));
  block.each(all * vectors, [&](int i) {
    const int sample = i / vectors, column = i % vectors * kVector;
    union {
      uint4 vector;
      P numbers[kVector];
    };
    vector = uint4{0, 0, 0, 0};
    if (sample < samples && column < inputs) {
      vector = fetch(reinterpret_cast<const uint4*>(rows + sample * apart + first + column));
#pragma unroll
      for (int v = 0; v < kVector; ++v) {
        if (column + v >= inputs) narrow(0.0f, numbers[v]);
      }
    }
    *reinterpret_cast<uint4*>(to + sample * stride + column) = vector;
  });
}

}  // namespace fastdraw
