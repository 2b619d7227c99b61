// The whole recurrence of (conditional) DRAW, paper 000 eq. 3-20, forward. One step:
//
//   from_dec = h_dec W + b        everything that needs h_dec alone: query, read window, prior, parts of all gates
//   y = attention(query), r = read(image, canvas, window)                                        sample by sample
//   h_enc = LSTM(from_dec.enc + [r, h_enc] W)
//   posterior = h_enc W + b, z and the KL                                                        sample by sample
//   h_dec = LSTM(from_dec.dec + [z, y] W)
//   patch and window = h_dec W + b, canvas += write(patch, window)                               sample by sample
//
// Samples are independent. A large batch is dealt out to the threads, each of which takes its samples through all steps
// without waiting for another; a small one goes through every stage together, and the threads share the columns of the
// products. Weights are packed once per call. Reads the weights once per step and thread, and stores one row of
// `Record` per sample and step for the backward pass.
#include <torch/csrc/stable/library.h>

#include "cpu/attention.h"
#include "cpu/latent.h"
#include "cpu/likelihood.h"
#include "cpu/lstm.h"
#include "cpu/recurrence.h"

namespace fastdraw {
namespace {

template <typename A>
struct ForwardWeights {
  Packed<A> from_dec, enc, posterior, dec, written;
  Matrix<A> from_dec_bias, posterior_bias, written_bias;

  ForwardWeights(const Arguments& given, const Columns& to)
      : from_dec(given.sizes.U, to.from_dec, given.options.bfloat16),
        enc(given.sizes.encoder ? to.h_enc + given.sizes.U : 0, 4 * given.sizes.U, given.options.bfloat16),
        posterior(given.sizes.encoder ? given.sizes.U : 0, 2 * given.sizes.Z, given.options.bfloat16),
        dec(given.sizes.Z + given.sizes.D, 4 * given.sizes.U, given.options.bfloat16),
        written(given.sizes.U, to.written, given.options.bfloat16),
        from_dec_bias(1, to.from_dec),
        posterior_bias(1, 2 * given.sizes.Z),
        written_bias(1, to.written) {
    const Sizes& at = given.sizes;
    const auto weight = [&](Weight name) -> const Tensor& { return *given.weights[name]; };
    const auto bias = [&](Matrix<A>& row, Weight name, int64_t column) {
      const int64_t size = weight(name).size(0);
      Input<1>(weight(name)).load(row.row(0) + column, size, 1, size);
    };
    if (at.L > 0) {
      from_dec.put_transposed(weight(kAlignQuery), 0, at.U, 0, to.query);
      bias(from_dec_bias, kAlignBias, to.query);
    }
    if (at.read_window() > 0) {
      from_dec.put_transposed(weight(kReadWindow), 0, at.U, 0, to.read_window);
      bias(from_dec_bias, kReadWindowBias, to.read_window);
    }
    from_dec.put_transposed(weight(kPrior), 0, at.U, 0, to.prior);
    bias(from_dec_bias, kPriorBias, to.prior);
    from_dec.put_transposed(weight(kDecHh), 0, at.U, 0, to.dec);
    bias(from_dec_bias, kDecBias, to.dec);
    dec.put_transposed(weight(kDecIh), 0, at.Z + at.D, 0, 0);
    written.put_transposed(weight(kPatch), 0, at.U, 0, 0);
    bias(written_bias, kPatchBias, 0);
    if (at.write_window() > 0) {
      written.put_transposed(weight(kWriteWindow), 0, at.U, 0, to.write_window);
      bias(written_bias, kWriteWindowBias, to.write_window);
    }
    if (!at.encoder) return;
    from_dec.put_transposed(weight(kEncIh), at.glimpse(), at.U, 0, to.enc);
    bias(from_dec_bias, kEncBias, to.enc);
    enc.put_transposed(weight(kEncIh), 0, at.glimpse(), 0, 0);
    enc.zero_rows(at.glimpse(), to.h_enc);
    enc.put_transposed(weight(kEncHh), 0, at.U, to.h_enc, 0);
    posterior.put_transposed(weight(kPosterior), 0, at.U, 0, 0);
    bias(posterior_bias, kPosteriorBias, 0);
  }
};

template <typename A>
class Forward : Recurrence<A> {
  using Base = Recurrence<A>;
  using Base::at_, Base::columns_, Base::options_, Base::record_, Base::schedule_, Base::given_;
  const ForwardWeights<A> weights_;
  Output kl_, frames_;

 public:
  // rows: how many fit into `saved`.
  Forward(const Arguments& given, bool keep, A* saved, int64_t rows) : Base(given, keep), weights_(given, columns_) {
    record_.place(saved, rows, at_);
    if (keep) record_.zero_rows(schedule_.rows(), rows);
  }

  // nll (B,) and kl (T, B) with an encoder; canvas (B, C, H, W) or frames (T, B, C, H, W).
  void run(const Output& nll, const Output& kl, const Output& canvas, const Output& frames) {
    kl_ = kl;
    frames_ = frames;
    this->for_groups([&](const Group& group) {
      for (int64_t t = 0; t < at_.T; ++t) step(group, t);
      this->for_samples(group, group.count(at_.B), at_.pixels(), [&](int64_t place, Worker<A>&) {
        const int64_t b = schedule_.order[place];
        const A* final = this->canvas(place, schedule_.steps(place));
        if (canvas.data != nullptr) canvas.store(final, 0, 1, at_.pixels(), b * at_.pixels());
        if (nll.data == nullptr) return;
        const A value = bernoulli_nll_row(at_.pixels(), final, this->image(place));
        nll.store(&value, 1, 1, 1, b);
      });
    });
  }

 private:
  void step(const Group& group, int64_t t) {
    const int64_t n = group.count(schedule_.count(t));
    const int64_t row = this->row(t, group.begin), before = t == 0 ? 0 : this->row(t - 1, group.begin);
    const auto& record = record_;
    const Rows<A> from_dec{record.from_dec.row(row), record.from_dec.ld};
    const A* h_dec = t == 0 ? this->h0_dec_.row(0) : record.h_dec.row(before);
    this->multiply(
        group, n, h_dec, t == 0 ? 0 : record.h_dec.ld, weights_.from_dec, 0, columns_.from_dec,
        weights_.from_dec_bias.row(0), from_dec.data, from_dec.ld);
    this->for_samples(group, n, this->glimpse_cost(2 * at_.n_read) + 12 * at_.L * at_.A, [&](int64_t place, auto& by) {
      record_.zero_padding(this->row(t, place), at_);
      finish_prior(t, place);
      attend_and_read(t, place, by);
    });
    if (at_.encoder) {
      this->multiply(
          group, n, record.x.row(row), record.x.ld, weights_.enc, 0, padded<A>(4 * at_.U), nullptr,
          from_dec.data + columns_.enc, from_dec.ld, true);
      this->for_samples(group, n, 50 * at_.U, [&](int64_t place, auto&) { encode(t, place); });
      this->multiply(
          group, n, record.h_enc.row(row), record.h_enc.ld, weights_.posterior, 0, 2 * at_.Z,
          weights_.posterior_bias.row(0), record.posterior.row(row), record.posterior.ld);
    }
    this->for_samples(group, n, 30 * at_.Z, [&](int64_t place, auto& by) { sample(t, place, by); });
    this->multiply(
        group, n, record.zy.row(row), record.zy.ld, weights_.dec, 0, padded<A>(4 * at_.U), nullptr,
        from_dec.data + columns_.dec, from_dec.ld, true);
    this->for_samples(group, n, 50 * at_.U, [&](int64_t place, auto&) {
      const int64_t i = this->row(t, place);
      lstm_row(
          at_.U, record_.from_dec.row(i) + columns_.dec, cell_before(record_.c_dec, t, place), record_.c_dec.row(i),
          record_.h_dec.row(i));
    });
    this->multiply(
        group, n, record.h_dec.row(row), record.h_dec.ld, weights_.written, 0, columns_.written,
        weights_.written_bias.row(0), record.written.row(row), record.written.ld);
    this->for_samples(group, n, this->glimpse_cost(at_.n_write), [&](int64_t place, auto& by) { write(t, place, by); });
    if (frames_.data == nullptr) return;
    this->for_samples(group, group.count(at_.B), at_.pixels(), [&](int64_t place, auto&) {
      const A* canvas = this->canvas(place, std::min(t + 1, schedule_.steps(place)));
      frames_.store(canvas, 0, 1, at_.pixels(), (t * at_.B + schedule_.order[place]) * at_.pixels());
    });
  }

  const A* cell_before(const Rows<A>& cells, int64_t t, int64_t place) const {
    return t == 0 ? this->zeros_.row(0) : cells.row(this->row(t - 1, place));
  }

  void finish_prior(int64_t t, int64_t place) {
    A* prior = record_.from_dec.row(this->row(t, place)) + columns_.prior;
    const int64_t Z = at_.Z;
    if (options_.standard_first && t == 0) std::fill_n(prior, 2 * Z, A{0});
    if (options_.tanh_prior) std::transform(prior, prior + 2 * Z, prior, [](A x) { return std::tanh(x); });
    if (options_.log_variance) std::transform(prior + Z, prior + 2 * Z, prior + Z, [](A x) { return x / 2; });
  }

  void attend_and_read(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place);
    const A* from_dec = record_.from_dec.row(i);
    if (at_.L > 0) {
      attend(
          this->lengths_[place], at_.A, at_.D, from_dec + columns_.query, this->keys(place), this->labels(place),
          this->align_v_.row(0), by.weights.row(0), record_.zy.row(i) + at_.Z);
    }
    if (!at_.encoder) return;
    A* x = record_.x.row(i);
    const A *image = this->image(place), *canvas = this->canvas(place, t);
    if (by.reader) {
      by.reader->set_window(from_dec + columns_.read_window, given_.dtype);
      by.reader->read(image, canvas, x);
    } else {
      std::copy_n(image, at_.pixels(), x);
      error_image(at_.pixels(), image, canvas, x + at_.pixels());
    }
    if (t == 0) std::copy_n(this->h0_enc_.row(0), at_.U, x + columns_.h_enc);
  }

  void encode(int64_t t, int64_t place) {
    const int64_t i = this->row(t, place);
    lstm_row(
        at_.U, record_.from_dec.row(i) + columns_.enc, cell_before(record_.c_enc, t, place), record_.c_enc.row(i),
        record_.h_enc.row(i));
    if (place < schedule_.count(t + 1)) {
      std::copy_n(record_.h_enc.row(i), at_.U, record_.x.row(this->row(t + 1, place)) + columns_.h_enc);
    }
  }

  void sample(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place), b = schedule_.order[place], Z = at_.Z;
    const A* prior = record_.from_dec.row(i) + columns_.prior;
    const A* from = prior;
    this->noise_.load(by.noise.row(0), Z, 1, Z, t, b);
    if (at_.encoder) {
      A* posterior = record_.posterior.row(i);
      if (options_.log_variance) {
        std::transform(posterior + Z, posterior + 2 * Z, posterior + Z, [](A x) { return x / 2; });
      }
      const A kl = gaussian_kl_row(Z, posterior, posterior + Z, prior, prior + Z);
      kl_.store(&kl, 1, 1, 1, t * at_.B + b);
      from = posterior;
    }
    sample_row(Z, from, from + Z, by.noise.row(0), record_.zy.row(i));
  }

  void write(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place);
    const A *written = record_.written.row(i), *before = this->canvas(place, t);
    A* canvas = record_.canvas.row(i);
    if (by.writer) {
      by.writer->set_window(written + columns_.write_window, given_.dtype);
      by.writer->write(written, before, canvas);
    } else {
      for (int64_t k = 0; k < at_.pixels(); ++k) canvas[k] = before[k] + written[k];
    }
  }
};

// The shape of what is kept for a backward pass; no rows where there will be none.
struct Saved {
  int64_t rows, width;
};

template <typename A>
std::vector<Tensor> run_forward(const Arguments& given, bool frames, const Saved& keep) {
  const Tensor& noise = *given.noise;
  const Sizes& at = given.sizes;
  const Tensor saved = torch::stable::new_empty(noise, {keep.rows, keep.width}, compute_dtype<A>);
  if (keep.width > 0) check_saved<A>(given, saved);
  const int64_t rows = keep.width > 0 ? keep.rows : std::min<int64_t>(at.T, 2) * at.B;
  const Buffer<A> passing(keep.width > 0 ? 0 : rows * record_width<A>(at));
  A* const record = keep.width > 0 ? static_cast<A*>(saved.mutable_data_ptr()) : passing.get();
  use_huge_pages(record, static_cast<size_t>(rows * record_width<A>(at)) * sizeof(A));
  Forward<A> forward(given, keep.width > 0, record, rows);
  if (!at.encoder) {
    const Tensor canvas =
        frames ? new_empty(noise, {at.T, at.B, at.C, at.H, at.W}) : new_empty(noise, {at.B, at.C, at.H, at.W});
    forward.run({}, {}, frames ? Output() : Output(canvas), frames ? Output(canvas) : Output());
    return {canvas, saved};
  }
  const Tensor nll = new_empty(noise, {at.B}), canvas = new_empty(noise, {at.B, at.C, at.H, at.W});
  Tensor kl = new_empty(noise, {at.T, at.B});
  kl = torch::stable::zero_(kl);
  forward.run(nll, kl, canvas, {});
  return {nll, kl, canvas, saved};
}

void draw_rollout(StableIValue* stack, uint64_t, uint64_t) {
  Stack from(stack);
  const Arguments given = take_arguments("draw_rollout", from, true);
  const Saved keep{from.integer(), from.integer()};
  with_compute_type("draw_rollout", given.dtype, [&](auto compute) {
    give(stack, run_forward<decltype(compute)>(given, false, keep));
  });
}

void draw_generate(StableIValue* stack, uint64_t, uint64_t) {
  Stack from(stack);
  const Arguments given = take_arguments("draw_generate", from, false);
  const bool frames = from.flag();
  const Saved keep{from.integer(), from.integer()};
  with_compute_type("draw_generate", given.dtype, [&](auto compute) {
    give(stack, run_forward<decltype(compute)>(given, frames, keep));
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("draw_rollout", &draw_rollout);
  m.impl("draw_generate", &draw_generate);
}

}  // namespace fastdraw
