// What the emulation of CUDA kernels (csrc/cuda/block.h) has of its own.
#include "cuda/block.h"

namespace fastdraw {

thread_local Here here;
bool in_reverse = false;

}  // namespace fastdraw

extern "C" void fastdraw_emulate_in_reverse(int yes) { fastdraw::in_reverse = yes != 0; }
