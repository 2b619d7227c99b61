// What the blocks of a persistent rollout own, counted: a library for test_persistent_plan.py.
#include "cuda/rollout_plan.h"

#include <vector>

using namespace fastdraw;

namespace {

// body(slice, pieces) for every slice of every block of a group.
template <typename Body>
void each_slice(const int64_t* n, int blocks, bool backward, const Body& body) {
  const Sizes at{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], n[11], n[12] != 0};
  const int slices = backward ? int{kBackwardSlices} : int{kForwardSlices};
  for (int k = 0; k < blocks; ++k) {
    const Owned own(at, blocks, k);
    for (int slice = 0; slice < slices; ++slice) {
      body(at, [&](const auto& visit) {
        backward ? backward_pieces(slice, at, own, visit) : forward_pieces(slice, at, own, visit);
      });
    }
  }
}

}  // namespace

// Adds to held, of the shape of a weight, how often the blocks of a group hold each of its elements.
extern "C" void count_held(const int64_t* sizes, int blocks, bool backward, int weight, int* held) {
  each_slice(sizes, blocks, backward, [&](const Sizes& at, const auto& pieces) {
    const int64_t columns = weight_columns(static_cast<Weight>(weight), at);
    pieces([&](const Piece& piece) {
      for (int r = 0; r < piece.rows; ++r) {
        if (piece.bias == weight) ++held[piece.row(r)];
        for (int i = 0; i < piece.inputs && piece.weight == weight; ++i) {
          ++held[piece.transposed ? i * columns + piece.column + r : piece.row(r) * columns + piece.column + i];
        }
      }
    });
  });
}

// Places in slices that two pieces take, or that lie beyond their slice.
extern "C" int count_conflicts(const int64_t* sizes, int blocks, bool backward) {
  int conflicts = 0;
  each_slice(sizes, blocks, backward, [&](const Sizes&, const auto& pieces) {
    const SliceShape shape = slice_shape(pieces);
    std::vector<bool> taken(static_cast<size_t>(shape.rows) * shape.inputs);
    int below = 0;
    pieces([&](const Piece& piece) {
      const int row = piece.input > 0 ? 0 : below;
      for (int r = row; r < row + piece.rows; ++r) {
        for (int i = piece.input; i < piece.input + piece.inputs; ++i) {
          const bool inside = r < shape.rows && i < shape.inputs;
          if (!inside || taken[r * shape.inputs + i]) {
            ++conflicts;
          } else {
            taken[r * shape.inputs + i] = true;
          }
        }
      }
      below = row + piece.rows;
    });
  });
  return conflicts;
}

// The k-th of `parts` shares of 0..total.
extern "C" void find_share(int64_t total, int64_t parts, int64_t k, int* range) {
  const Range found = share(total, parts, k);
  range[0] = found.begin, range[1] = found.end;
}
