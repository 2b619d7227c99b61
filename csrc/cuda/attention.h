#pragma once

// Additive attention of one sample by all threads of a block, and its gradients, for any kernel; equations in
// attention.cu. The launchers of the op.

#include "cuda/rows.h"

namespace fastdraw {

// How many items count of each sample, (B,) in either integer dtype; all of them where there is no such array.
struct Counts {
  const void* counts = nullptr;
  bool is_int64 = false;

  // No more than there are: under torch.compile nobody has looked at the numbers.
  FASTDRAW_DEVICE int of(int64_t b, int most) const {
    if (counts == nullptr) return most;
    const int64_t count = is_int64 ? static_cast<const int64_t*>(counts)[b] : static_cast<const int32_t*>(counts)[b];
    return count < 0 ? 0 : static_cast<int>(lesser(count, most));
  }
};

// Arrays are contiguous and lie in global memory or shared memory, of any dtype that is computed in A: query (units),
// keys (L, units), values (L, D), v (units), context (D), weights (L), gradients of the same shapes. Only the first
// `length` items are read; 0 <= length <= L. Scratch memory is the arena's. Every thread can read the inputs before the
// call, and the outputs after it.
template <typename A>
class BlockAttention {
  static constexpr int kVec = kVectorBytes / sizeof(A);
  static constexpr int kChunk = kWarp * kVec;  // units that a warp takes at once

  int L_, units_, D_, chunks_;
  A* parts_;    // (chunks, L) of the scores
  A* weights_;  // (L)
  A* dscores_;  // (L)

 public:
  FASTDRAW_HD BlockAttention(Arena& arena, int64_t L, int64_t units, int64_t D, bool backward)
      : L_(static_cast<int>(L)),
        units_(static_cast<int>(units)),
        D_(static_cast<int>(D)),
        chunks_(static_cast<int>(divide_up(units, kChunk))),
        parts_(arena.take<A>(chunks_ * L)),
        weights_(arena.take<A>(L)),
        dscores_(backward ? arena.take<A>(L) : nullptr) {}

  // Writes the context, and the weights, 0 beyond the length, unless that is null.
  template <typename Query, typename Keys, typename Values, typename V, typename Context, typename Weights>
  FASTDRAW_DEVICE void attend(
      const Block& block, const Query* query, const Keys* keys, const Values* values, const V* v, int length,
      Context* context, Weights* weights) const {
    weigh(block, query, keys, v, length);
    if (weights != nullptr) {
      block.each(L_, [&](int l) { narrow(l < length ? weights_[l] : A(0), weights[l]); });
    }
    block.each(D_, [&](int d) {
      A total = 0;
      for (int l = 0; l < length; ++l) total += weights_[l] * widen(values[int64_t{l} * D_ + d]);
      narrow(total, context[d]);
    });
  }

  // Writes dquery. The other gradients are written too, with zeros beyond the length, or are added to what is there.
  // dweights is null where no gradient flows into the weights, which are computed again.
  template <
      typename DContext, typename DWeights, typename Query, typename Keys, typename Values, typename V, typename DQuery,
      typename DKeys, typename DValues, typename DV>
  FASTDRAW_DEVICE void attend_bwd(
      const Block& block, const DContext* dcontext, const DWeights* dweights, const Query* query, const Keys* keys,
      const Values* values, const V* v, int length, DQuery* dquery, DKeys* dkeys, DValues* dvalues, DV* dv,
      bool add) const {
    weigh(block, query, keys, v, length);
    values_bwd(block, dcontext, dweights, values, length, dvalues, add);
    block.each_warp(1, [&](int, const Warp& warp) {
      const A mean = warp.sum(length, [&](int l) { return weights_[l] * dscores_[l]; });
      warp.each(length, [&](int l) { dscores_[l] = weights_[l] * (dscores_[l] - mean); });
    });
    units_bwd(block, query, keys, v, length, dquery, dkeys, dv, add);
  }

 private:
  // The weights of the first `length` items.
  template <typename Query, typename Keys, typename V>
  FASTDRAW_DEVICE void weigh(const Block& block, const Query* query, const Keys* keys, const V* v, int length) const {
    const bool whole = fits<kVec>(units_, query) && fits<kVec>(units_, keys) && fits<kVec>(units_, v);
    block.each_warp(length * chunks_, [&](int item, const Warp& warp) {
      const int l = item / chunks_, chunk = item % chunks_, first = chunk * kChunk;
      const int vectors = static_cast<int>(lesser(divide_up(units_ - first, kVec), kWarp));
      const A part = warp.sum(vectors, [&](int vector) {
        const int at = first + vector * kVec, count = static_cast<int>(lesser(units_ - at, kVec));
        const auto query_at = load_wide<kVec>(query, at, count, whole);
        const auto key_at = load_wide<kVec>(keys, int64_t{l} * units_ + at, count, whole);
        const auto v_at = load_wide<kVec>(v, at, count, whole);
        A total = 0;
        for (int i = 0; i < kVec; ++i) total += v_at.lane[i] * tanh_(query_at.lane[i] + key_at.lane[i]).value;
        return total;
      });
      warp.each(1, [&](int) { parts_[int64_t{chunk} * L_ + l] = part; });
    });
    // One warp, since there are few items.
    block.each_warp(1, [&](int, const Warp& warp) {
      warp.each(length, [&](int l) {
        A score = 0;
        for (int chunk = 0; chunk < chunks_; ++chunk) score += parts_[int64_t{chunk} * L_ + l];
        weights_[l] = score;
      });
      const A most = warp.max(length, [&](int l) { return weights_[l]; });
      warp.each(length, [&](int l) { weights_[l] = std::exp(weights_[l] - most); });
      const A total = warp.sum(length, [&](int l) { return weights_[l]; });
      warp.each(length, [&](int l) { weights_[l] /= total; });
    });
  }

  // dvalues, and the gradient of the weights in dscores.
  template <typename DContext, typename DWeights, typename Values, typename DValues>
  FASTDRAW_DEVICE void values_bwd(
      const Block& block, const DContext* dcontext, const DWeights* dweights, const Values* values, int length,
      DValues* dvalues, bool add) const {
    block.each_warp(add ? length : L_, [&](int l, const Warp& warp) {
      const int64_t row = int64_t{l} * D_;
      if (l >= length) {
        warp.each(D_, [&](int d) { narrow(A(0), dvalues[row + d]); });
        return;
      }
      const A dweight = warp.sum(D_, [&](int d) {
        const A upstream = widen(dcontext[d]), dvalue = weights_[l] * upstream;
        narrow(add ? widen(dvalues[row + d]) + dvalue : dvalue, dvalues[row + d]);
        return upstream * widen(values[row + d]);
      });
      warp.each(1, [&](int) { dscores_[l] = dweights == nullptr ? dweight : dweight + widen(dweights[l]); });
    });
  }

  // dquery, dkeys and dv.
  template <typename Query, typename Keys, typename V, typename DQuery, typename DKeys, typename DV>
  FASTDRAW_DEVICE void units_bwd(
      const Block& block, const Query* query, const Keys* keys, const V* v, int length, DQuery* dquery, DKeys* dkeys,
      DV* dv, bool add) const {
    const bool whole = fits<kVec>(units_, query) && fits<kVec>(units_, keys) && fits<kVec>(units_, v) &&
        fits<kVec>(units_, dquery) && fits<kVec>(units_, dkeys) && fits<kVec>(units_, dv);
    block.each(static_cast<int>(divide_up(units_, kVec)), [&](int vector) {
      const int at = vector * kVec, count = static_cast<int>(lesser(units_ - at, kVec));
      const auto query_at = load_wide<kVec>(query, at, count, whole), v_at = load_wide<kVec>(v, at, count, whole);
      Pack<A, kVec> dquery_at{}, dv_at{};
      if (add) dv_at = load_wide<kVec>(dv, at, count, whole);
      for (int l = 0; l < L_; ++l) {
        const int64_t row = int64_t{l} * units_ + at;
        Pack<A, kVec> dkey_at{};
        if (l < length) {
          const A dscore = dscores_[l];
          const auto key_at = load_wide<kVec>(keys, row, count, whole);
          if (add) dkey_at = load_wide<kVec>(dkeys, row, count, whole);
          for (int i = 0; i < kVec; ++i) {
            const auto unit = tanh_(query_at.lane[i] + key_at.lane[i]);
            const A dsum = dscore * v_at.lane[i] * unit.slope;
            dquery_at.lane[i] += dsum;
            dkey_at.lane[i] += dsum;
            dv_at.lane[i] += dscore * unit.value;
          }
        } else if (add) {
          break;
        }
        store_narrow<kVec>(dkeys, row, dkey_at, count, whole);
      }
      store_narrow<kVec>(dquery, at, dquery_at, count, whole);
      store_narrow<kVec>(dv, at, dv_at, count, whole);
    });
  }
};

// Samples, items, units, columns, and how many v there are: each is for B / G samples in a row.
struct AttentionSizes {
  int64_t B, L, A, D, G;

  // Bytes of global memory that the kernels need for scratch; none where a block's shared memory has room for it.
  template <typename T>
  int64_t scratch(bool backward) const {
    const int64_t bytes = scratch_of_block<T>(backward);
    return bytes > kMostShared ? B * bytes : 0;
  }

  template <typename T>
  FASTDRAW_HD int64_t scratch_of_block(bool backward) const {
    Arena arena;
    BlockAttention<Compute<T>>(arena, L, A, D, backward);
    return static_cast<int64_t>(arena.used());
  }

 private:
  static constexpr int64_t kMostShared = 48 << 10;  // what a kernel may have unasked
};

// The arrays of the op, contiguous and on the current device. v (G, A)
template <typename T>
struct AttentionInputs {
  const T *query, *keys, *values, *v;
  Counts lengths;
  std::byte* scratch;  // null where shared memory suffices
};

// context (B, D), weights (B, L). Instantiated for float, double, __nv_bfloat16 and __half, as is the backward.
template <typename T>
void launch_attention_fwd(
    T* context, T* weights, const AttentionInputs<T>& inputs, const AttentionSizes& sizes, cudaStream_t stream);

template <typename T>
struct AttentionGradients {
  T *dquery, *dkeys, *dvalues, *dv;
  Compute<T>* dv_of_samples;  // (B, A)
};

// From dcontext (B, D), dweights (B, L).
template <typename T>
void launch_attention_bwd(
    const AttentionGradients<T>& gradients, const T* dcontext, const T* dweights, const AttentionInputs<T>& inputs,
    const AttentionSizes& sizes, cudaStream_t stream);

}  // namespace fastdraw
