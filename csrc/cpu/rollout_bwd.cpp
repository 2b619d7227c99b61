// The rollouts backward. Steps are taken in reverse, and mirror those of the forward pass:
//
//   dpatch, dwindow = d write;   dh_dec = [dpatch, dwindow] W + dfrom_dec(t + 1) W
//   dfrom_dec.dec = d LSTM;   d[z, y] = dfrom_dec.dec W
//   dquery = d attention;   dprior, dposterior = d sample and d KL
//   dh_enc = dposterior W + dfrom_dec.enc(t + 1) W;   dfrom_dec.enc = d LSTM
//   dglimpse = dfrom_dec.enc W;   dwindow = d read, and what of it flows into the canvas
//
// Filters are computed again from their windows. The gradients of a weight are not summed up step by step: those of
// what it made are kept, and one product over all samples and steps ends the pass.
#include <torch/csrc/stable/library.h>

#include "cpu/attention.h"
#include "cpu/latent.h"
#include "cpu/likelihood.h"
#include "cpu/lstm.h"
#include "cpu/recurrence.h"

namespace fastdraw {
namespace {

// Parts of a row, (first column, columns), and what lies between them.
using Parts = std::vector<std::pair<int64_t, int64_t>>;

Parts gaps(const Parts& parts, int64_t width) {
  Parts between;
  int64_t at = 0;
  for (const auto& [column, columns] : parts) {
    if (column > at) between.emplace_back(at, column - at);
    at = column + columns;
  }
  if (width > at) between.emplace_back(at, width - at);
  return between;
}

template <typename A>
void zero(const Parts& parts, A* row) {
  for (const auto& [column, columns] : parts) std::fill_n(row + column, columns, A{0});
}

Parts from_dec_gaps(const Sizes& at, const Columns& to) {
  Parts parts{{to.query, at.A}, {to.read_window, at.read_window()}, {to.prior, 2 * at.Z}};
  if (at.encoder) parts.emplace_back(to.enc, 4 * at.U);
  parts.emplace_back(to.dec, 4 * at.U);
  return gaps(parts, to.from_dec);
}

Parts written_gaps(const Sizes& at, const Columns& to) {
  return gaps({{0, at.patch()}, {to.write_window, at.write_window()}}, to.written);
}

template <typename A>
struct BackwardWeights {
  Packed<A> from_dec, enc, posterior, dec, written;

  BackwardWeights(const Arguments& given, const Columns& to)
      : from_dec(to.from_dec, given.sizes.U, given.options.bfloat16),
        enc(given.sizes.encoder ? 4 * given.sizes.U : 0, to.x, given.options.bfloat16),
        posterior(given.sizes.encoder ? 2 * given.sizes.Z : 0, given.sizes.U, given.options.bfloat16),
        dec(4 * given.sizes.U, given.sizes.Z + given.sizes.D, given.options.bfloat16),
        written(to.written, given.sizes.U, given.options.bfloat16) {
    const Sizes& at = given.sizes;
    const auto weight = [&](Weight name) -> const Tensor& { return *given.weights[name]; };
    for (const auto& [row, rows] : from_dec_gaps(at, to)) from_dec.zero_rows(row, row + rows);
    for (const auto& [row, rows] : written_gaps(at, to)) written.zero_rows(row, row + rows);
    if (at.L > 0) from_dec.put(weight(kAlignQuery), 0, at.U, to.query, 0);
    if (at.read_window() > 0) from_dec.put(weight(kReadWindow), 0, at.U, to.read_window, 0);
    from_dec.put(weight(kPrior), 0, at.U, to.prior, 0);
    from_dec.put(weight(kDecHh), 0, at.U, to.dec, 0);
    dec.put(weight(kDecIh), 0, at.Z + at.D, 0, 0);
    written.put(weight(kPatch), 0, at.U, 0, 0);
    if (at.write_window() > 0) written.put(weight(kWriteWindow), 0, at.U, to.write_window, 0);
    if (!at.encoder) return;
    from_dec.put(weight(kEncIh), at.glimpse(), at.U, to.enc, 0);
    enc.put(weight(kEncIh), 0, at.glimpse(), 0, 0);
    enc.put(weight(kEncHh), 0, at.U, 0, to.h_enc);
    posterior.put(weight(kPosterior), 0, at.U, 0, 0);
  }
};

// A gradient in the compute type, and in the end in the dtype of what it belongs to.
template <typename A>
class Gradient {
  Tensor value_, result_;

 public:
  explicit Gradient(const Tensor& like)
      : value_(torch::stable::new_empty(like, like.sizes(), compute_dtype<A>)), result_(value_) {
    if (like.scalar_type() != compute_dtype<A>) result_ = torch::stable::new_empty(like, like.sizes());
  }
  A* get() const { return static_cast<A*>(value_.mutable_data_ptr()); }
  Tensor finish() const {
    if (result_.scalar_type() != value_.scalar_type()) Output(result_).store(get(), 0, 1, value_.numel(), 0);
    return result_;
  }
};

// c (M, columns) = a^T (M, K) x packed (K, columns)
template <typename A>
struct WeightProduct {
  int64_t M, columns;
  const A* a;
  int64_t lda;
  const A* packed;
  A* c;
  int64_t ldc;
};

template <typename A>
void run_products(const std::vector<WeightProduct<A>>& products, int64_t K) {
  std::vector<WeightProduct<A>> pieces;
  for (const WeightProduct<A>& whole : products) {
    for (int64_t m = 0; m < whole.M; m += kTransposedRows) {
      WeightProduct<A> piece = whole;
      piece.M = std::min(kTransposedRows, whole.M - m);
      piece.a += m;
      piece.c += m * piece.ldc;
      pieces.push_back(piece);
    }
  }
  const auto work = [&](int64_t begin, int64_t end) {
    const Buffer<A> scratch(kTransposedScratch);
    for (int64_t k = begin; k < end; ++k) {
      const WeightProduct<A>& at = pieces[k];
      multiply_transposed(at.M, K, at.columns, at.a, at.lda, at.packed, at.c, at.ldc, scratch.get());
    }
  };
  run_parallel(work, pieces.size(), std::max<int64_t>(1, K * kTransposedRows * 16));
}

// out (columns) = the sum of all rows
template <typename A>
void sum_rows(const Rows<A>& from, int64_t rows, int64_t columns, A* out) {
  constexpr int64_t kTogether = 64;  // rows whose sum is rounded apart from the total
  const auto work = [&](int64_t begin, int64_t end) {
    std::vector<A> part(end - begin);
    std::fill(out + begin, out + end, A{0});
    for (int64_t first = 0; first < rows; first += kTogether) {
      std::fill(part.begin(), part.end(), A{0});
      for (int64_t i = first; i < std::min(rows, first + kTogether); ++i) {
        for (int64_t k = begin; k < end; ++k) part[k - begin] += from.row(i)[k];
      }
      for (int64_t k = begin; k < end; ++k) out[k] += part[k - begin];
    }
  };
  run_parallel(work, columns, std::max<int64_t>(1, rows));
}

struct Wanted {
  bool image, labels, noise;
};

template <typename A>
class Backward : Recurrence<A> {
  using Base = Recurrence<A>;
  using Base::at_, Base::columns_, Base::options_, Base::record_, Base::schedule_, Base::given_;
  std::optional<BackwardWeights<A>> weights_;
  const Parts from_dec_gaps_, written_gaps_;
  const Input<1> dnll_;
  const Input<2> dkl_;
  const Wanted wanted_;
  // A row for every sample and step.
  const Buffer<A> from_dec_rows_, posterior_rows_, written_rows_;
  Rows<A> dfrom_dec_, dposterior_, dwritten_;
  // A row for every sample.
  Matrix<A> dh_dec_, dc_dec_, dh_enc_, dc_enc_, dzy_, dglimpse_, dcanvas_, dkeys_, dvalues_, dalign_v_, dimage_;
  Output dnoise_;

 public:
  Backward(const Arguments& given, const Tensor& saved, const Input<1>& dnll, const Input<2>& dkl, const Wanted& wanted)
      : Base(given, true),
        weights_(std::in_place, given, columns_),
        from_dec_gaps_(from_dec_gaps(at_, columns_)),
        written_gaps_(written_gaps(at_, columns_)),
        dnll_(dnll),
        dkl_(dkl),
        wanted_(wanted),
        from_dec_rows_(schedule_.rows() * columns_.from_dec),
        posterior_rows_(at_.encoder ? schedule_.rows() * padded<A>(2 * at_.Z) : 0),
        written_rows_(schedule_.rows() * columns_.written),
        dfrom_dec_{from_dec_rows_.get(), columns_.from_dec},
        dposterior_{posterior_rows_.get(), padded<A>(2 * at_.Z)},
        dwritten_{written_rows_.get(), columns_.written},
        dh_dec_(at_.B, at_.U),
        dc_dec_(at_.B, at_.U),
        dh_enc_(at_.encoder ? at_.B : 0, at_.U),
        dc_enc_(at_.encoder ? at_.B : 0, at_.U),
        dzy_(at_.B, at_.Z + at_.D),
        dglimpse_(at_.encoder ? at_.B : 0, at_.glimpse()),
        dcanvas_(at_.B, at_.pixels()),
        dkeys_(1, at_.B * at_.L * at_.A),
        dvalues_(1, at_.B * at_.L * at_.D),
        dalign_v_(at_.B, at_.A),
        dimage_(wanted.image ? at_.B : 0, at_.pixels()) {
    record_.place(static_cast<A*>(saved.mutable_data_ptr()), saved.size(0), at_);
  }

  // dcanvas (B, C, H, W), or of the frames (T, B, C, H, W).
  void run(const Input<4>& dcanvas, const Input<5>& dframes, const Output& dnoise) {
    dnoise_ = dnoise;
    this->for_groups([&](const Group& group) {
      this->for_samples(
          group, group.count(at_.B), 3 * at_.pixels(), [&](int64_t place, auto&) { start(place, dcanvas, dframes); });
      for (int64_t t = at_.T - 1; t >= 0; --t) step(group, t, dframes);
      // What flows into the learned states before the first step.
      const int64_t n = group.count(schedule_.count(0)), row = this->row(0, group.begin);
      this->multiply(
          group, n, dfrom_dec_.row(row), dfrom_dec_.ld, weights_->from_dec, 0, at_.U, nullptr, dh_dec_.row(group.begin),
          dh_dec_.ld());
      if (!at_.encoder) return;
      this->multiply(
          group, n, dfrom_dec_.row(row) + columns_.enc, dfrom_dec_.ld, weights_->enc, columns_.h_enc, at_.U, nullptr,
          dh_enc_.row(group.begin), dh_enc_.ld());
    });
    weights_.reset();  // makes room for their gradients
  }

  // Gradients of the weights, in their order; nothing for those that take no part.
  std::vector<Tensor> weight_gradients() {
    std::array<std::optional<Gradient<A>>, kWeights> found;
    const auto to = [&](Weight name) {
      if (!found[name]) found[name].emplace(*given_.weights[name]);
      return found[name]->get();
    };
    const auto first_column = [](const Rows<A>& rows, int64_t column) { return Rows<A>{rows.data + column, rows.ld}; };
    const int64_t rows = schedule_.rows(), U = at_.U, glimpse = at_.glimpse(), ld_enc = glimpse + U;

    // From a part of a row, `from`, to the columns of a weight from which it was made.
    std::vector<WeightProduct<A>> products;
    const auto product = [&](const Rows<A>& from, int64_t outputs, A* weight, int64_t ld, const Packed<A>& inputs,
                             int64_t column, int64_t columns) {
      const A* packed = inputs.get() + column * inputs.K();
      products.push_back({outputs, columns, from.data, from.ld, packed, weight, ld});
    };
    const auto run = [&] {
      run_products(products, rows);
      products.clear();
    };
    const Rows<A> enc = first_column(dfrom_dec_, columns_.enc), dec = first_column(dfrom_dec_, columns_.dec);
    const Rows<A> prior = first_column(dfrom_dec_, columns_.prior);
    {
      Packed<A> h_before(rows, U);
      const std::vector<int64_t> before = schedule_.rows_before();
      h_before.put_rows(record_.h_dec.data, record_.h_dec.ld, U, before.data(), this->h0_dec_.row(0));
      if (at_.L > 0) product(first_column(dfrom_dec_, columns_.query), at_.A, to(kAlignQuery), U, h_before, 0, U);
      if (at_.read_window() > 0) {
        product(first_column(dfrom_dec_, columns_.read_window), 5, to(kReadWindow), U, h_before, 0, U);
      }
      product(prior, 2 * at_.Z, to(kPrior), U, h_before, 0, U);
      product(dec, 4 * U, to(kDecHh), U, h_before, 0, U);
      if (at_.encoder) product(enc, 4 * U, to(kEncIh) + glimpse, ld_enc, h_before, 0, U);
      run();
    }
    {
      Packed<A> h_after(rows, U);
      h_after.put_rows(record_.h_dec.data, record_.h_dec.ld, U);
      product(dwritten_, at_.patch(), to(kPatch), U, h_after, 0, U);
      if (at_.write_window() > 0) {
        product(first_column(dwritten_, columns_.write_window), 5, to(kWriteWindow), U, h_after, 0, U);
      }
      run();
    }
    {
      Packed<A> zy(rows, at_.Z + at_.D);
      zy.put_rows(record_.zy.data, record_.zy.ld, at_.Z + at_.D);
      product(dec, 4 * U, to(kDecIh), at_.Z + at_.D, zy, 0, at_.Z + at_.D);
      run();
    }
    if (at_.encoder) {
      Packed<A> x(rows, columns_.x);
      x.put_rows(record_.x.data, record_.x.ld, columns_.h_enc + U);
      product(enc, 4 * U, to(kEncIh), ld_enc, x, 0, glimpse);
      product(enc, 4 * U, to(kEncHh), U, x, columns_.h_enc, U);
      run();
    }
    if (at_.encoder) {
      Packed<A> h_enc(rows, U);
      h_enc.put_rows(record_.h_enc.data, record_.h_enc.ld, U);
      product(dposterior_, 2 * at_.Z, to(kPosterior), U, h_enc, 0, U);
      run();
    }
    if (at_.L > 0) {
      const int64_t items = at_.B * at_.L;
      Packed<A> labels(items, at_.D);
      labels.put_rows(this->labels_.get(), at_.D, at_.D);
      run_products<A>({{at_.A, at_.D, dkeys_.row(0), at_.A, labels.get(), to(kAlignKey), at_.D}}, items);
      sum_rows(first_column(dfrom_dec_, columns_.query), rows, at_.A, to(kAlignBias));
      sum_rows({dalign_v_.row(0), dalign_v_.ld()}, at_.B, at_.A, to(kAlignV));
    }
    if (at_.read_window() > 0) {
      sum_rows(first_column(dfrom_dec_, columns_.read_window), rows, 5, to(kReadWindowBias));
    }
    sum_rows(prior, rows, 2 * at_.Z, to(kPriorBias));
    sum_rows(dec, rows, 4 * U, to(kDecBias));
    sum_rows(dwritten_, rows, at_.patch(), to(kPatchBias));
    if (at_.write_window() > 0) {
      sum_rows(first_column(dwritten_, columns_.write_window), rows, 5, to(kWriteWindowBias));
    }
    sum_rows({dh_dec_.row(0), dh_dec_.ld()}, at_.B, U, to(kH0Dec));
    sum_rows({dcanvas_.row(0), dcanvas_.ld()}, at_.B, at_.pixels(), to(kCanvas0));
    if (at_.encoder) {
      sum_rows(enc, rows, 4 * U, to(kEncBias));
      sum_rows(dposterior_, rows, 2 * at_.Z, to(kPosteriorBias));
      sum_rows({dh_enc_.row(0), dh_enc_.ld()}, at_.B, U, to(kH0Enc));
    }
    std::vector<Tensor> gradients;
    for (int name = 0; name < kWeights; ++name) {
      gradients.push_back(found[name] ? found[name]->finish() : new_empty(*given_.noise, {0}));
    }
    return gradients;
  }

  void store_image(const Output& dimage) {
    for (int64_t place = 0; place < at_.B; ++place) {
      dimage.store(dimage_.row(place), 0, 1, at_.pixels(), schedule_.order[place] * at_.pixels());
    }
  }

  // Through the keys as well as through the values.
  void store_labels(const Output& dlabels) const {
    if (at_.L == 0) return;
    Packed<A> align_key(at_.A, at_.D, options_.bfloat16);
    align_key.put(*given_.weights[kAlignKey], 0, at_.D, 0, 0);
    Matrix<A> sum(at_.L, at_.D);
    for (int64_t place = 0; place < at_.B; ++place) {
      align_key.multiply(
          {at_.L, at_.A, 0, align_key.end(), at_.A, sum.ld()}, dkeys_.row(0) + place * at_.L * at_.A, nullptr,
          sum.row(0));
      for (int64_t l = 0; l < at_.L; ++l) {
        const A* values = dvalues_.row(0) + (place * at_.L + l) * at_.D;
        for (int64_t d = 0; d < at_.D; ++d) sum.row(l)[d] += values[d];
      }
      dlabels.store(sum.row(0), sum.ld(), at_.L, at_.D, schedule_.order[place] * at_.L * at_.D);
    }
  }

 private:
  // The gradient of the canvas after the last step of a sample.
  void start(int64_t place, const Input<4>& dcanvas, const Input<5>& dframes) {
    const int64_t b = schedule_.order[place], steps = schedule_.steps(place), size = at_.H * at_.W;
    A* to = dcanvas_.row(place);
    if (at_.encoder) {
      A dnll;
      dnll_.load(&dnll, 1, 1, 1, b);
      A* dimage = wanted_.image ? dimage_.row(place) : nullptr;
      bernoulli_nll_row_bwd(at_.pixels(), dnll, this->canvas(place, steps), this->image(place), to, dimage);
    }
    Matrix<A> part(at_.H, at_.W);
    const auto add = [&](const auto& from, int64_t c, auto... index) {
      from.load(part.row(0), at_.W, at_.H, at_.W, index..., c);
      for (int64_t k = 0; k < size; ++k) to[c * size + k] += part.row(0)[k];
    };
    for (int64_t c = 0; c < at_.C; ++c) {
      if (dcanvas.data != nullptr) add(dcanvas, c, b);
      for (int64_t t = steps; dframes.data != nullptr && t < at_.T; ++t) add(dframes, c, t, b);
    }
  }

  void step(const Group& group, int64_t t, const Input<5>& dframes) {
    const int64_t n = group.count(schedule_.count(t)), next = group.count(schedule_.count(t + 1));
    const int64_t row = this->row(t, group.begin), row_next = next > 0 ? this->row(t + 1, group.begin) : 0;
    const auto own = [&](Matrix<A>& rows) { return rows.row(group.begin); };

    this->for_samples(group, n, 2 * this->glimpse_cost(at_.n_write), [&](int64_t place, auto& by) {
      unwrite(t, place, by, dframes);
    });
    this->multiply(
        group, n, dwritten_.row(row), dwritten_.ld, weights_->written, 0, at_.U, nullptr, own(dh_dec_), dh_dec_.ld());
    this->multiply(
        group, next, dfrom_dec_.row(row_next), dfrom_dec_.ld, weights_->from_dec, 0, at_.U, nullptr, own(dh_dec_),
        dh_dec_.ld(), true);
    this->for_samples(group, n, 40 * at_.U, [&](int64_t place, auto&) {
      unstep(t, place, columns_.dec, record_.c_dec, dh_dec_, dc_dec_);
    });
    this->multiply(
        group, n, dfrom_dec_.row(row) + columns_.dec, dfrom_dec_.ld, weights_->dec, 0, at_.Z + at_.D, nullptr,
        own(dzy_), dzy_.ld());
    this->for_samples(group, n, 20 * at_.L * at_.A + 50 * at_.Z, [&](int64_t place, auto& by) {
      unattend(t, place, by);
      unsample(t, place, by);
    });
    if (!at_.encoder) return;
    this->multiply(
        group, n, dposterior_.row(row), dposterior_.ld, weights_->posterior, 0, at_.U, nullptr, own(dh_enc_),
        dh_enc_.ld());
    this->multiply(
        group, next, dfrom_dec_.row(row_next) + columns_.enc, dfrom_dec_.ld, weights_->enc, columns_.h_enc, at_.U,
        nullptr, own(dh_enc_), dh_enc_.ld(), true);
    this->for_samples(group, n, 40 * at_.U, [&](int64_t place, auto&) {
      unstep(t, place, columns_.enc, record_.c_enc, dh_enc_, dc_enc_);
    });
    this->multiply(
        group, n, dfrom_dec_.row(row) + columns_.enc, dfrom_dec_.ld, weights_->enc, 0, at_.glimpse(), nullptr,
        own(dglimpse_), dglimpse_.ld());
    this->for_samples(
        group, n, 3 * this->glimpse_cost(2 * at_.n_read), [&](int64_t place, auto& by) { unread(t, place, by); });
  }

  void unwrite(int64_t t, int64_t place, Worker<A>& by, const Input<5>& dframes) {
    const int64_t i = this->row(t, place), size = at_.H * at_.W;
    A *dcanvas = dcanvas_.row(place), *dwritten = dwritten_.row(i);
    zero(written_gaps_, dwritten);
    zero(from_dec_gaps_, dfrom_dec_.row(i));
    if (dframes.data != nullptr) {
      for (int64_t c = 0; c < at_.C; ++c) {
        dframes.load(by.frame.row(0), at_.W, at_.H, at_.W, t, schedule_.order[place], c);
        for (int64_t k = 0; k < size; ++k) dcanvas[c * size + k] += by.frame.row(0)[k];
      }
    }
    if (by.writer) {
      const A* written = record_.written.row(i);
      by.writer->set_window(written + columns_.write_window, given_.dtype);
      by.writer->write_bwd(dcanvas, written, dwritten, dwritten + columns_.write_window);
    } else {
      std::copy_n(dcanvas, at_.pixels(), dwritten);
    }
  }

  void unstep(int64_t t, int64_t place, int64_t gates, const Rows<A>& cells, const Matrix<A>& dh, Matrix<A>& dc) {
    const int64_t i = this->row(t, place);
    const A* before = t == 0 ? this->zeros_.row(0) : cells.row(this->row(t - 1, place));
    lstm_row_bwd(
        at_.U, record_.from_dec.row(i) + gates, before, cells.row(i), dh.row(place), dc.row(place),
        dfrom_dec_.row(i) + gates);
  }

  void unattend(int64_t t, int64_t place, Worker<A>& by) {
    if (at_.L == 0) return;
    // The weights of the attention are a few numbers and are made again.
    const int64_t i = this->row(t, place);
    const A *query = record_.from_dec.row(i) + columns_.query, *keys = this->keys(place), *values = this->labels(place);
    attend(
        this->lengths_[place], at_.A, at_.D, query, keys, values, this->align_v_.row(0), by.weights.row(0),
        by.context.row(0));
    attend_bwd(
        this->lengths_[place], at_.A, at_.D, dzy_.row(place) + at_.Z, nullptr, query, keys, values,
        this->align_v_.row(0), by.weights.row(0), dfrom_dec_.row(i) + columns_.query,
        dkeys_.row(0) + place * at_.L * at_.A, dvalues_.row(0) + place * at_.L * at_.D, dalign_v_.row(place),
        by.sums.row(0));
  }

  void unsample(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place), b = schedule_.order[place], Z = at_.Z;
    const A* prior = record_.from_dec.row(i) + columns_.prior;
    A* dprior = dfrom_dec_.row(i) + columns_.prior;
    A* dnoise = wanted_.noise ? by.dnoise.row(0) : nullptr;
    this->noise_.load(by.noise.row(0), Z, 1, Z, t, b);
    if (at_.encoder) {
      const A* posterior = record_.posterior.row(i);
      A *dposterior = dposterior_.row(i), dkl;
      dkl_.load(&dkl, 1, 1, 1, t, b);
      gaussian_kl_row_bwd(
          Z, dkl, posterior, posterior + Z, prior, prior + Z, dposterior, dposterior + Z, dprior, dprior + Z);
      sample_row_bwd(Z, dzy_.row(place), posterior + Z, by.noise.row(0), dposterior, dposterior + Z, dnoise);
      if (options_.log_variance) halve(dposterior + Z);
    } else {
      std::fill_n(dprior, 2 * Z, A{0});
      sample_row_bwd(Z, dzy_.row(place), prior + Z, by.noise.row(0), dprior, dprior + Z, dnoise);
    }
    if (dnoise != nullptr) dnoise_.store(dnoise, 1, 1, Z, (t * at_.B + b) * Z);
    if (options_.standard_first && t == 0) std::fill_n(dprior, 2 * Z, A{0});
    if (options_.log_variance) halve(dprior + Z);
    if (!options_.tanh_prior) return;
    for (int64_t k = 0; k < 2 * Z; ++k) {
      const A value = options_.log_variance && k >= Z ? 2 * prior[k] : prior[k];
      dprior[k] *= 1 - value * value;
    }
  }

  void halve(A* row) const {
    for (int64_t k = 0; k < at_.Z; ++k) row[k] /= 2;
  }

  void unread(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place);
    const A *dglimpse = dglimpse_.row(place), *image = this->image(place), *canvas = this->canvas(place, t);
    A *dimage = wanted_.image ? dimage_.row(place) : nullptr, *dcanvas = dcanvas_.row(place);
    if (by.reader) {
      by.reader->set_window(record_.from_dec.row(i) + columns_.read_window, given_.dtype);
      by.reader->read_bwd(dglimpse, image, canvas, dimage, dcanvas, dfrom_dec_.row(i) + columns_.read_window);
      return;
    }
    for (int64_t k = 0; dimage != nullptr && k < at_.pixels(); ++k) dimage[k] += dglimpse[k];
    error_image_bwd(at_.pixels(), dglimpse + at_.pixels(), canvas, dimage, dcanvas);
  }
};

template <typename A>
std::vector<Tensor> run_backward(
    const Arguments& given, const Tensor& dcanvas, const Tensor& saved, const Tensor* dnll, const Tensor* dkl,
    bool frames, const Wanted& wanted) {
  const Tensor& noise = *given.noise;
  const Sizes& at = given.sizes;
  check_saved<A>(given, saved);
  Backward<A> backward(given, saved, dnll ? Input<1>(*dnll) : Input<1>(), dkl ? Input<2>(*dkl) : Input<2>(), wanted);
  std::vector<Tensor> results;
  const Tensor dimage = wanted.image ? new_empty(noise, {at.B, at.C, at.H, at.W}) : new_empty(noise, {0});
  const Tensor dlabels = wanted.labels ? new_empty(noise, {at.B, at.L, at.D}) : new_empty(noise, {0});
  Tensor dnoise = wanted.noise ? new_empty(noise, {at.T, at.B, at.Z}) : new_empty(noise, {0});
  dnoise = torch::stable::zero_(dnoise);
  backward.run(
      frames ? Input<4>() : Input<4>(dcanvas), frames ? Input<5>(dcanvas) : Input<5>(),
      wanted.noise ? Output(dnoise) : Output());
  if (wanted.image) backward.store_image(dimage);
  if (wanted.labels) backward.store_labels(dlabels);
  if (at.encoder) results.push_back(dimage);
  results.push_back(dlabels);
  results.push_back(dnoise);
  for (const Tensor& gradient : backward.weight_gradients()) results.push_back(gradient);
  return results;
}

void draw_rollout_bwd(StableIValue* stack, uint64_t, uint64_t) {
  Stack from(stack);
  const Tensor dnll = from.tensor(), dkl = from.tensor(), dcanvas = from.tensor(), saved = from.tensor();
  const Arguments given = take_arguments("draw_rollout_bwd", from, true);
  const Wanted wanted{from.flag(), from.flag(), from.flag()};
  const Sizes& at = given.sizes;
  check_tensor("draw_rollout_bwd", "dnll", dnll, given.dtype, {at.B});
  check_tensor("draw_rollout_bwd", "dkl", dkl, given.dtype, {at.T, at.B});
  check_tensor("draw_rollout_bwd", "dcanvas", dcanvas, given.dtype, {at.B, at.C, at.H, at.W});
  with_compute_type("draw_rollout_bwd", given.dtype, [&](auto compute) {
    give(stack, run_backward<decltype(compute)>(given, dcanvas, saved, &dnll, &dkl, false, wanted));
  });
}

void draw_generate_bwd(StableIValue* stack, uint64_t, uint64_t) {
  Stack from(stack);
  const Tensor dcanvas = from.tensor(), saved = from.tensor();
  const Arguments given = take_arguments("draw_generate_bwd", from, false);
  const bool frames = from.flag();
  const Wanted wanted{false, from.flag(), from.flag()};
  const Sizes& at = given.sizes;
  if (frames) {
    check_tensor("draw_generate_bwd", "dcanvas", dcanvas, given.dtype, {at.T, at.B, at.C, at.H, at.W});
  } else {
    check_tensor("draw_generate_bwd", "dcanvas", dcanvas, given.dtype, {at.B, at.C, at.H, at.W});
  }
  with_compute_type("draw_generate_bwd", given.dtype, [&](auto compute) {
    give(stack, run_backward<decltype(compute)>(given, dcanvas, saved, nullptr, nullptr, frames, wanted));
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("draw_rollout_bwd", &draw_rollout_bwd);
  m.impl("draw_generate_bwd", &draw_generate_bwd);
}

}  // namespace fastdraw
