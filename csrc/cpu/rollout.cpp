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
// products. Weights are packed once per call, and read once per step by every group of samples. A step writes one row
// of `Record` for every sample; without a backward pass the rows of two steps serve in turn.
//
// place, row: see layout.h.
#include <torch/csrc/stable/library.h>

#include "cpu/attention.h"
#include "cpu/latent.h"
#include "cpu/likelihood.h"
#include "cpu/lstm.h"
#include "cpu/recurrence.h"

namespace fastdraw {
namespace {

template <typename A>
struct PackedLinear {
  Packed<A> weight;
  Matrix<A> bias;

  PackedLinear(const Linear& of, const RolloutArguments& given)
      : weight(of.inputs, of.outputs, given.options.bfloat16), bias(1, of.outputs) {
    for (const Block& block : of.blocks) {
      weight.put_transposed(*given.weights[block.weight], block.from, block.inputs, block.row, block.column);
    }
    for (const auto& [row, rows] : input_gaps(of)) weight.zero_rows(row, row + rows);
    for (const Bias& part : of.biases) {
      Input<1>(*given.weights[part.weight]).load(bias.row(0) + part.column, part.size, 1, part.size);
    }
  }
};

// What a call returns; without data where it is not asked for.
struct Results {
  Output nll, kl;         // (B,) and (T, B), with an encoder
  Output canvas, frames;  // (B, C, H, W), (T, B, C, H, W)
};

template <typename A>
class Forward : Recurrence<A> {
  using Base = Recurrence<A>;
  using Base::at_, Base::columns_, Base::options_, Base::record_, Base::schedule_, Base::given_, Base::linears_;
  const PackedLinear<A> from_dec_, enc_, posterior_, dec_, written_;
  const Results results_;

 public:
  // `rows` rows at `record`, for all steps if `keep`.
  Forward(const RolloutArguments& given, const Results& results, bool keep, A* record, int64_t rows)
      : Base(given, keep),
        from_dec_(linears_.from_dec, given),
        enc_(linears_.enc, given),
        posterior_(linears_.posterior, given),
        dec_(linears_.dec, given),
        written_(linears_.written, given),
        results_(results) {
    STD_TORCH_CHECK(!keep || rows >= schedule_.rows(), "saved must have ", schedule_.rows(), " rows, got ", rows);
    record_.lay_out(record, rows, at_);
    if (keep) record_.zero_rows(schedule_.rows(), rows);
  }

  void run() {
    this->for_groups([&](const Group& group) {
      for (int64_t t = 0; t < at_.T; ++t) {
        step(group, t);
        if (results_.frames.data != nullptr) store_frame(group, t);
      }
      this->for_samples(group, group.count(at_.B), at_.pixels(), [&](int64_t place, auto&) { finish(place); });
    });
  }

 private:
  // c = a W + b, or with `add` c += a W, for the first n samples of a group, whose first rows a and c are.
  void apply(
      const Group& group, int64_t n, const PackedLinear<A>& by, const Rows<A>& a, const Rows<A>& c,
      bool add = false) const {
    this->multiply(group, n, a.data, a.ld, by.weight, 0, by.bias.ld(), by.bias.row(0), c, add);
  }

  void step(const Group& group, int64_t t) {
    const int64_t n = group.count(schedule_.count(t));
    if (n == 0) return;
    const auto at = [&](const Rows<A>& part, int64_t step) {
      return Rows<A>{part.row(this->row(step, group.begin)), part.ld};
    };
    const Rows<A> from_dec = at(record_.from_dec, t), h_dec = at(record_.h_dec, t);
    const Rows<A> h_before = t == 0 ? Rows<A>{this->h0_dec_.row(0), 0} : at(record_.h_dec, t - 1);

    apply(group, n, from_dec_, h_before, from_dec);
    this->for_samples(group, n, this->glimpse_cost(2 * at_.n_read) + 12 * at_.L * at_.A, [&](int64_t place, auto& by) {
      record_.zero_padding(this->row(t, place), at_);
      finish_prior(t, place);
      if (at_.L > 0) attend_to_labels(t, place, by);
      if (at_.encoder) read(t, place, by);
    });
    if (at_.encoder) {
      apply(group, n, enc_, at(record_.x, t), from_dec.from(columns_.enc), true);
      this->for_samples(group, n, 50 * at_.U, [&](int64_t place, auto&) { encode(t, place); });
      apply(group, n, posterior_, at(record_.h_enc, t), at(record_.posterior, t));
    }
    this->for_samples(group, n, 30 * at_.Z, [&](int64_t place, auto& by) { sample(t, place, by); });
    apply(group, n, dec_, at(record_.zy, t), from_dec.from(columns_.dec), true);
    this->for_samples(group, n, 50 * at_.U, [&](int64_t place, auto&) { decode(t, place); });
    apply(group, n, written_, h_dec, at(record_.written, t));
    this->for_samples(group, n, this->glimpse_cost(at_.n_write), [&](int64_t place, auto& by) { write(t, place, by); });
  }

  void finish_prior(int64_t t, int64_t place) {
    const int64_t Z = at_.Z;
    A* prior = record_.from_dec.row(this->row(t, place)) + columns_.prior;
    if (options_.standard_first && t == 0) std::fill_n(prior, 2 * Z, A{0});
    if (options_.tanh_prior) tanh_row(2 * Z, prior);
    if (options_.log_variance) scale_row(Z, A(0.5), prior + Z);
  }

  void attend_to_labels(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place);
    attend(
        this->length(place), at_.A, at_.D, record_.from_dec.row(i) + columns_.query, this->keys(place),
        this->labels(place), this->align_v_.row(0), by.weights.row(0), record_.zy.row(i) + at_.Z);
  }

  void read(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place), pixels = at_.pixels();
    const A *image = this->image(place), *canvas = this->canvas(place, t);
    A* x = record_.x.row(i);
    if (by.reader) {
      by.reader->set_window(record_.from_dec.row(i) + columns_.read_window, given_.dtype);
      by.reader->read(image, canvas, x);
    } else {
      std::copy_n(image, pixels, x);
      make_error(1, pixels, image, canvas, x + pixels, by.slope.row(0), pixels);
    }
    if (t == 0) std::copy_n(this->h0_enc_.row(0), at_.U, x + columns_.h_enc);
  }

  void encode(int64_t t, int64_t place) {
    const int64_t i = this->row(t, place);
    lstm_row(
        at_.U, record_.from_dec.row(i) + columns_.enc, this->cell_before(record_.c_enc, t, place), record_.c_enc.row(i),
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
      if (options_.log_variance) scale_row(Z, A(0.5), posterior + Z);
      const A kl = gaussian_kl_row(Z, posterior, posterior + Z, prior, prior + Z);
      results_.kl.store(&kl, 1, 1, 1, t * at_.B + b);
      from = posterior;
    }
    sample_row(Z, from, from + Z, by.noise.row(0), record_.zy.row(i));
  }

  void decode(int64_t t, int64_t place) {
    const int64_t i = this->row(t, place);
    lstm_row(
        at_.U, record_.from_dec.row(i) + columns_.dec, this->cell_before(record_.c_dec, t, place), record_.c_dec.row(i),
        record_.h_dec.row(i));
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

  void store_frame(const Group& group, int64_t t) {
    this->for_samples(group, group.count(at_.B), at_.pixels(), [&](int64_t place, auto&) {
      const A* canvas = this->canvas(place, std::min(t + 1, schedule_.steps(place)));
      results_.frames.store(canvas, 0, 1, at_.pixels(), (t * at_.B + schedule_.order[place]) * at_.pixels());
    });
  }

  void finish(int64_t place) {
    const int64_t b = schedule_.order[place];
    const A* canvas = this->canvas(place, schedule_.steps(place));
    if (results_.canvas.data != nullptr) results_.canvas.store(canvas, 0, 1, at_.pixels(), b * at_.pixels());
    if (results_.nll.data == nullptr) return;
    const A nll = bernoulli_nll_row(at_.pixels(), canvas, this->image(place));
    results_.nll.store(&nll, 1, 1, 1, b);
  }
};

// What will be kept. rows: 0: there will be no backward pass; -1: rows for all steps; else the steps that are taken.
struct Saved {
  int64_t rows, width;
};

template <typename A>
std::vector<Tensor> run_forward(const RolloutArguments& given, bool frames, const Saved& saved_as) {
  const Tensor& noise = *given.noise;
  const Sizes& at = given.sizes;
  const bool keep = saved_as.rows != 0;
  const int64_t width = record_width<A>(at), kept = saved_as.rows < 0 ? at.T * at.B : saved_as.rows;
  STD_TORCH_CHECK(!keep || saved_as.width == width, "saved_width must be ", width, ", got ", saved_as.width);
  const Tensor saved = torch::stable::new_empty(noise, {kept, keep ? width : 0}, compute_dtype<A>);
  const int64_t rows = keep ? kept : std::min<int64_t>(at.T, 2) * at.B;
  const Buffer<A> passing(keep ? 0 : rows * width);
  A* const record = keep ? static_cast<A*>(saved.mutable_data_ptr()) : passing.get();
  use_huge_pages(record, static_cast<size_t>(rows * width) * sizeof(A));
  if (!at.encoder) {
    const Tensor canvas =
        frames ? new_empty(noise, {at.T, at.B, at.C, at.H, at.W}) : new_empty(noise, {at.B, at.C, at.H, at.W});
    Results results{};
    (frames ? results.frames : results.canvas) = canvas;
    Forward<A>(given, results, keep, record, rows).run();
    return {canvas, saved};
  }
  const Tensor nll = new_empty(noise, {at.B}), canvas = new_empty(noise, {at.B, at.C, at.H, at.W});
  Tensor kl = new_empty(noise, {at.T, at.B});
  kl = torch::stable::zero_(kl);  // of the steps that a sample does not take
  Forward<A>(given, {nll, kl, canvas, {}}, keep, record, rows).run();
  return {nll, kl, canvas, saved};
}

void draw_rollout(StableIValue* stack, uint64_t, uint64_t) {
  Stack from(stack);
  const RolloutArguments given = take_arguments("draw_rollout", from, true);
  const Saved saved{from.integer(), from.integer()};
  with_compute_type("draw_rollout", given.dtype, [&](auto compute) {
    give(stack, run_forward<decltype(compute)>(given, false, saved));
  });
}

void draw_generate(StableIValue* stack, uint64_t, uint64_t) {
  Stack from(stack);
  const RolloutArguments given = take_arguments("draw_generate", from, false);
  const bool frames = from.flag();
  const Saved saved{from.integer(), from.integer()};
  with_compute_type("draw_generate", given.dtype, [&](auto compute) {
    give(stack, run_forward<decltype(compute)>(given, frames, saved));
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("draw_rollout", &draw_rollout);
  m.impl("draw_generate", &draw_generate);
}

}  // namespace fastdraw
