#include "cpu/recurrence.h"

namespace fastdraw {
namespace {

// One group per thread if each gets enough samples; else one, whose stages are shared.
int64_t groups_for(int64_t B) {
  constexpr int64_t kRows = 8;  // with fewer, reading the weights takes longer than multiplying
  const int64_t threads = torch::stable::get_num_threads();
  return B >= kRows * threads ? threads : 1;
}

}  // namespace

template <typename A>
Recurrence<A>::Recurrence(const RolloutArguments& given, bool keep)
    : given_(given),
      noise_(*given.noise),
      at_(given.sizes),
      options_(given.options),
      columns_(columns_of<A>(given.sizes)),
      linears_(linears_of<A>(given.sizes)),
      schedule_(given, keep),
      groups_(groups_for(given.sizes.B)),
      zeros_(1, at_.U),
      h0_enc_(1, at_.U),
      h0_dec_(1, at_.U),
      canvas0_(1, at_.pixels()),
      align_v_(1, at_.A),
      image_(at_.encoder ? at_.B * at_.pixels() : 0),
      labels_(at_.B * at_.L * at_.D),
      keys_(at_.B * at_.L * at_.A) {
  const int64_t threads = torch::stable::get_num_threads(), size = at_.H * at_.W;
  workers_.reserve(threads);
  for (int64_t w = 0; w < std::min(threads, at_.B); ++w) workers_.emplace_back(at_, options_);

  const auto load = [&](Matrix<A>& to, Weight weight, int64_t elements) {
    Input<1>(*given.weights[weight]).load(to.row(0), elements, 1, elements);
  };
  if (at_.encoder) load(h0_enc_, kH0Enc, at_.U);
  load(h0_dec_, kH0Dec, at_.U);
  const Input<3> canvas0 = *given.weights[kCanvas0];
  for (int64_t c = 0; c < at_.C; ++c) canvas0.load(canvas0_.row(0) + c * size, at_.W, at_.H, at_.W, c);

  const Input<4> image = at_.encoder ? Input<4>(*given.image) : Input<4>();
  const Input<3> labels = at_.L > 0 ? Input<3>(*given.labels) : Input<3>();
  const auto load_samples = [&](int64_t begin, int64_t end) {
    for (int64_t place = begin; place < end; ++place) {
      const int64_t b = schedule_.order[place];
      if (at_.L > 0) labels.load(labels_.get() + place * at_.L * at_.D, at_.D, at_.L, at_.D, b);
      for (int64_t c = 0; at_.encoder && c < at_.C; ++c) {
        image.load(image_.get() + place * at_.pixels() + c * size, at_.W, at_.H, at_.W, b, c);
      }
    }
  };
  run_parallel(load_samples, at_.B, at_.pixels());
  if (at_.L == 0) return;

  load(align_v_, kAlignV, at_.A);
  Packed<A> align_key(at_.D, at_.A, options_.bfloat16);
  align_key.put_transposed(*given.weights[kAlignKey], 0, at_.D, 0, 0);
  const int64_t items = at_.B * at_.L;
  const Buffer<A> keys(items * padded<A>(at_.A));
  multiply({0, 1}, items, labels_.get(), at_.D, align_key, 0, at_.A, nullptr, Rows<A>{keys.get(), padded<A>(at_.A)});
  for (int64_t i = 0; i < items; ++i) std::copy_n(keys.get() + i * padded<A>(at_.A), at_.A, keys_.get() + i * at_.A);
}

template class Recurrence<float>;
template class Recurrence<double>;

}  // namespace fastdraw
