// A program that launches two blocks, of which so many as its argument says come to a barrier of two.
#include <cstdio>
#include <cstdlib>

#include "cuda/exchange.h"
#include "cuda/launch.h"

namespace {

using namespace fastdraw;

struct Call {
  unsigned* counter;
  int coming;
};

FASTDRAW_KERNEL(kWarp) barrier_kernel(FASTDRAW_ARGUMENT Call call) {
  const Block block;
  GroupBarrier barrier(call.counter, 2);
  if (block.index() < call.coming) barrier.sync(block);
}

void run(int coming) {
#if defined(__CUDACC__)
  unsigned* counter = nullptr;
  cudaMalloc(&counter, sizeof(unsigned));
  cudaMemset(counter, 0, sizeof(unsigned));
  launch_cooperative(barrier_kernel, 2, kWarp, 0, nullptr, Call{counter, coming});
  const cudaError_t launched = cudaGetLastError();
  const cudaError_t ended = cudaDeviceSynchronize();
  std::puts(launched != cudaSuccess ? "not launched" : ended != cudaSuccess ? "ended with an error" : "ended");
  std::puts(cudaGetErrorString(launched != cudaSuccess ? launched : ended));
#else
  unsigned counter = 0;
  try {
    launch_cooperative(barrier_kernel, 2, kWarp, 0, nullptr, Call{&counter, coming});
    std::puts("ended");
  } catch (const std::exception& error) {
    std::printf("ended with an error\n%s\n", error.what());
  }
#endif
}

}  // namespace

int main(int, char** arguments) { run(std::atoi(arguments[1])); }
