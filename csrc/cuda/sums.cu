// sums[r, k] = sum_n partials[r, n, k]
//
// Partial sums are in the dtype that the sum is computed in, and are rounded to the dtype of the result here.
// A block computes neighbouring sums of one row: a thread adds up every so many of the partial sums of one of them, and
// a warp adds up those threads. Reads R N K numbers, neighbouring threads neighbouring ones, and writes R K.
// The order of a sum depends on N and K alone, and nothing is added up in memory: deterministic.

#include "cuda/sums.h"

#include "cuda/launch.h"

namespace fastdraw {
namespace {

constexpr int kThreads = 256;

template <typename T>
FASTDRAW_KERNEL(kThreads)
sum_partials_kernel(T* __restrict__ sums, const Compute<T>* __restrict__ partials, int64_t N, int64_t K, int columns) {
  const Block block;
  Arena arena = block.shared();
  auto* const of_threads = arena.take<Compute<T>>(kThreads);
  const int64_t groups = divide_up(K, columns), row = block.index() / groups;
  const int64_t first = block.index() % groups * columns;
  const int slices = kThreads / columns;
  block.each(kThreads, [&](int thread) {
    const int64_t k = first + thread % columns;
    Compute<T> total = 0;
    if (k < K) {
      for (int64_t n = thread / columns; n < N; n += slices) total += partials[(row * N + n) * K + k];
    }
    of_threads[thread] = total;
  });
  block.each_warp(static_cast<int>(lesser(K - first, columns)), [&](int column, const Warp& warp) {
    const auto total = warp.sum(slices, [&](int slice) { return of_threads[slice * columns + column]; });
    warp.each(1, [&](int) { narrow(total, sums[row * K + first + column]); });
  });
}

}  // namespace

template <typename T>
void launch_sum_partials(T* sums, const Compute<T>* partials, int64_t R, int64_t N, int64_t K, cudaStream_t stream) {
  const int columns = K == 1 ? 1 : kWarp;
  launch(
      sum_partials_kernel<T>, R * divide_up(K, columns), kThreads, kThreads * sizeof(Compute<T>), stream, sums,
      partials, N, K, columns);
}

#define INSTANTIATE(T) \
  template void launch_sum_partials<T>(T*, const Compute<T>*, int64_t, int64_t, int64_t, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(__half)
#undef INSTANTIATE

}  // namespace fastdraw
