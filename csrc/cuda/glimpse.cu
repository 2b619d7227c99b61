//   read:   patch[c,i,j]  = gamma sum_{h,w} fy[i,h] image[c,h,w] fx[j,w]
//   write:  canvas[c,h,w] = 1/gamma sum_{i,j} fy[i,h] patch[c,i,j] fx[j,w]  [+ canvas]
//   draw_read reads an image and its error, image - sigmoid(canvas), through the same window: two parts.
//
// Backward, with square = gamma dpatch or patch / gamma, spread = square @ fx and rows = fy @ pixels, where the pixels
// are those of the image, of its error, or of dcanvas:
//
//   dimage = fy^T @ spread,   dcanvas = -fy^T @ spread * slope of the sigmoid,   dpatch = rows @ fx^T / gamma
//   dfy = spread @ pixels^T,  dfx = square^T @ rows,                             dlog_gamma = +-sum dfx fx
//
// Forward, a block takes one channel of a sample; backward, one sample, because its window has one gradient. It goes
// through the image in tiles that lie in shared memory, each a product with fy of all its parts at once; between the
// tiles of a column of tiles only the N rows are kept. The filters of a tile are made from five numbers and the sum of
// each filter: once if the tile is the whole image, else again for every tile. dfy and dfx are never kept: what they
// add to the gradient of the window is summed up in double, three sums for each filter.
//
// Each element of an image is read once and each result written once, by neighbouring threads four at a time if rows
// have whole fours. Forward: C H W elements in and parts C N N out, or the reverse, twice C H W with a canvas.
// Backward: C H W in for each part, and out for each gradient that is wanted; draw_read's canvas is read twice.
//
// A block adds in an order that depends on sizes alone, and no sum goes across blocks: deterministic.

#include "cuda/glimpse.h"

#include "cuda/launch.h"

namespace fastdraw {
namespace {

constexpr int kThreads = 256;  // not yet measured on a GPU

template <typename T>
FASTDRAW_KERNEL(kThreads)
glimpse_read_fwd_kernel(
    T* __restrict__ patch, const T* __restrict__ image, const T* __restrict__ canvas, const T* __restrict__ window,
    GlimpsePlan plan) {
  const Block block;
  Arena arena = block.shared();
  BlockGlimpse<Compute<T>> glimpse(arena, plan);
  const auto [C, H, W, N, per_axis, eps] = plan.shape;
  const int64_t b = block.index() / C, c = block.index() % C, first = block.index() * H * W;
  glimpse.template set_window<T>(block, window + 5 * b);
  glimpse.read_channel(
      block, image + first, plan.parts == 1 ? nullptr : canvas + first, patch + patch_offset(b, 0, c, plan.parts, C, N),
      int64_t{C} * N * N);
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
glimpse_read_bwd_kernel(
    T* __restrict__ dimage, T* __restrict__ dcanvas, T* __restrict__ dwindow, const T* __restrict__ dpatch,
    const T* __restrict__ image, const T* __restrict__ canvas, const T* __restrict__ window, GlimpsePlan plan) {
  const Block block;
  Arena arena = block.shared();
  BlockGlimpse<Compute<T>> glimpse(arena, plan);
  const auto [C, H, W, N, per_axis, eps] = plan.shape;
  const int64_t b = block.index(), first = b * C * H * W;
  const auto sample = [first](auto* array) { return array == nullptr ? nullptr : array + first; };
  glimpse.template set_window<T>(block, window + 5 * b);
  glimpse.template read_bwd<false>(
      block, dpatch + patch_offset(b, 0, 0, plan.parts, C, N), image + first, sample(canvas), sample(dimage),
      sample(dcanvas), dwindow + 5 * b);
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
glimpse_write_fwd_kernel(
    T* __restrict__ out, const T* __restrict__ patch, const T* __restrict__ canvas, const T* __restrict__ window,
    GlimpsePlan plan) {
  const Block block;
  Arena arena = block.shared();
  BlockGlimpse<Compute<T>> glimpse(arena, plan);
  const auto [C, H, W, N, per_axis, eps] = plan.shape;
  const int64_t b = block.index() / C, first = block.index() * H * W;
  glimpse.template set_window<T>(block, window + 5 * b);
  glimpse.write_channel(
      block, patch + block.index() * N * N, canvas == nullptr ? nullptr : canvas + first, out + first);
}

template <typename T>
FASTDRAW_KERNEL(kThreads)
glimpse_write_bwd_kernel(
    T* __restrict__ dpatch, T* __restrict__ dwindow, const T* __restrict__ dcanvas, const T* __restrict__ patch,
    const T* __restrict__ window, GlimpsePlan plan) {
  const Block block;
  Arena arena = block.shared();
  BlockGlimpse<Compute<T>> glimpse(arena, plan);
  const auto [C, H, W, N, per_axis, eps] = plan.shape;
  const int64_t b = block.index(), first = patch_offset(b, 0, 0, 1, C, N);
  glimpse.template set_window<T>(block, window + 5 * b);
  glimpse.write_bwd(block, dcanvas + b * C * H * W, patch + first, dpatch + first, dwindow + 5 * b);
}

}  // namespace

template <typename A>
GlimpsePlan plan_glimpse(const GlimpseShape& shape, int parts, bool backward, size_t most) {
  constexpr size_t kBudget = 64 << 10;            // registers allow two blocks to a multiprocessor
  constexpr int kFewRows = 16, kFewColumns = 32;  // a smaller tile is worse than fewer blocks
  const auto [C, H, W, N, per_axis, eps] = shape;

  const auto plan_of = [&, N = N](int rows, int columns) {
    const int side = whole_tiles(N), stacked = parts * side;
    GlimpsePlan plan{
        .shape = shape,
        .parts = parts,
        .backward = backward,
        .rows = rows,
        .columns = columns,
        .bytes = 0,
        .side = Divisor(side),
        .fours = Divisor(columns / kTile),
        .of_rows = Sharing::of<A>(N, parts * columns, rows),
        .of_patch = Sharing::of<A>(stacked, N, columns),
        .of_spread = Sharing::of<A>(stacked, columns, N),
        .of_pixels = Sharing::of<A>(rows, columns, N),
        .of_dfy = Sharing::of<A>(N, rows, parts * columns),
        .of_dfx = Sharing::of<A>(N, columns, stacked)};
    Arena arena;
    const BlockGlimpse<A> glimpse(arena, plan);
    plan.bytes = arena.used();
    return plan;
  };
  // Tiles of one size, as far as possible.
  const auto share = [](int length, int limit) {
    return whole_tiles(static_cast<int>(divide_up(length, divide_up(length, limit))));
  };
  const auto largest = [&, H = H, W = W](size_t budget) {
    GlimpsePlan best = plan_of(kTile, kTile);
    for (int columns = 128; columns >= kTile; columns /= 2) {
      for (int rows = 64; rows >= kTile; rows /= 2) {
        const GlimpsePlan plan = plan_of(share(H, rows), share(W, columns));
        if (plan.bytes <= budget && plan.rows * plan.columns > best.rows * best.columns) best = plan;
      }
    }
    return best;
  };
  for (size_t budget = kBudget; budget < most; budget *= 2) {
    const GlimpsePlan plan = largest(budget);
    if (plan.rows >= std::min(H, kFewRows) && plan.columns >= std::min(W, kFewColumns)) return plan;
  }
  return largest(most);
}
template GlimpsePlan plan_glimpse<float>(const GlimpseShape&, int, bool, size_t);
template GlimpsePlan plan_glimpse<double>(const GlimpseShape&, int, bool, size_t);

template <typename T>
void launch_glimpse_read_fwd(
    T* patch, const T* image, const T* canvas, const T* window, int64_t B, const GlimpsePlan& plan,
    cudaStream_t stream) {
  launch(
      glimpse_read_fwd_kernel<T>, B * plan.shape.C, kThreads, plan.bytes, stream, patch, image, canvas, window, plan);
}

template <typename T>
void launch_glimpse_write_fwd(
    T* out, const T* patch, const T* canvas, const T* window, int64_t B, const GlimpsePlan& plan, cudaStream_t stream) {
  launch(glimpse_write_fwd_kernel<T>, B * plan.shape.C, kThreads, plan.bytes, stream, out, patch, canvas, window, plan);
}

template <typename T>
void launch_glimpse_read_bwd(
    T* dimage, T* dcanvas, T* dwindow, const T* dpatch, const T* image, const T* canvas, const T* window, int64_t B,
    const GlimpsePlan& plan, cudaStream_t stream) {
  launch(
      glimpse_read_bwd_kernel<T>, B, kThreads, plan.bytes, stream, dimage, dcanvas, dwindow, dpatch, image, canvas,
      window, plan);
}

template <typename T>
void launch_glimpse_write_bwd(
    T* dpatch, T* dwindow, const T* dcanvas, const T* patch, const T* window, int64_t B, const GlimpsePlan& plan,
    cudaStream_t stream) {
  launch(glimpse_write_bwd_kernel<T>, B, kThreads, plan.bytes, stream, dpatch, dwindow, dcanvas, patch, window, plan);
}

#define INSTANTIATE(T)                                                                                \
  template void launch_glimpse_read_fwd<T>(                                                           \
      T*, const T*, const T*, const T*, int64_t, const GlimpsePlan&, cudaStream_t);                   \
  template void launch_glimpse_read_bwd<T>(                                                           \
      T*, T*, T*, const T*, const T*, const T*, const T*, int64_t, const GlimpsePlan&, cudaStream_t); \
  template void launch_glimpse_write_fwd<T>(                                                          \
      T*, const T*, const T*, const T*, int64_t, const GlimpsePlan&, cudaStream_t);                   \
  template void launch_glimpse_write_bwd<T>(                                                          \
      T*, T*, const T*, const T*, const T*, int64_t, const GlimpsePlan&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(__half)
#undef INSTANTIATE

}  // namespace fastdraw
