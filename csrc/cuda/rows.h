#pragma once

// What one thread takes of a row of any width: kVec neighbours, fewer at the end of the row. They come in one access
// where all rows fit vectors, and one by one elsewhere, so that a sum over a row has one order in either case.

#include "cuda/numbers.h"

namespace fastdraw {

// Whether every row of `width` elements starts on a vector's boundary and is whole vectors.
template <int kVec, typename T>
FASTDRAW_HD bool fits(int64_t width, const T* rows) {
  return width % kVec == 0 && reinterpret_cast<uintptr_t>(rows) % (kVec * sizeof(T)) == 0;
}

// `count` of kVec elements; the others are 0. `whole`, which implies that count is kVec: in one access.
template <int kVec, typename T>
FASTDRAW_DEVICE Pack<Compute<T>, kVec> load_wide(const T* rows, int64_t offset, int count, bool whole) {
  Pack<T, kVec> pack{};
  if (whole) {
    pack = load<kVec>(rows, offset);
  } else {
    for (int v = 0; v < kVec; ++v) {
      if (v < count) pack.lane[v] = rows[offset + v];
    }
  }
  Pack<Compute<T>, kVec> wide;
  for (int v = 0; v < kVec; ++v) wide.lane[v] = widen(pack.lane[v]);
  return wide;
}

template <int kVec, typename T>
FASTDRAW_DEVICE void store_narrow(T* rows, int64_t offset, const Pack<Compute<T>, kVec>& wide, int count, bool whole) {
  Pack<T, kVec> pack;
  for (int v = 0; v < kVec; ++v) narrow(wide.lane[v], pack.lane[v]);
  if (whole) {
    store(rows, offset, pack);
    return;
  }
  for (int v = 0; v < kVec; ++v) {
    if (v < count) rows[offset + v] = pack.lane[v];
  }
}

}  // namespace fastdraw
