// The rollouts backward. Steps are taken in reverse, and mirror those of the forward pass:
//
//   dpatch, dwindow = d write;   dh_dec = [dpatch, dwindow] W + dfrom_dec(t + 1) W
//   dfrom_dec.dec = d LSTM;   d[z, y] = dfrom_dec.dec W
//   dquery = d attention;   dprior, dposterior = d sample and d KL
//   dh_enc = dposterior W + dfrom_dec.enc(t + 1) W;   dfrom_dec.enc = d LSTM
//   dglimpse = dfrom_dec.enc W;   dwindow = d read, and what of it flows into the canvas
//
// Filters are computed again from their windows. The gradients of a weight are not summed up step by step: those of
// what it made are kept, and one product over all samples and steps ends the pass. Threads share the work as in
// rollout.cpp.
#include <torch/csrc/stable/library.h>

#include "cpu/attention.h"
#include "cpu/latent.h"
#include "cpu/likelihood.h"
#include "cpu/lstm.h"
#include "cpu/recurrence.h"
#include "cpu/weight_gradients.h"

namespace fastdraw {
namespace {

// Weights side by side as they are: from gradients of what they make to those of what they multiply.
template <typename A>
Packed<A> pack_backward(const Linear& of, const RolloutArguments& given) {
  Packed<A> packed(of.outputs, of.inputs, given.options.bfloat16);
  for (const auto& [row, rows] : output_gaps(of)) packed.zero_rows(row, row + rows);
  for (const Block& block : of.blocks) {
    packed.put(*given.weights[block.weight], block.from, block.inputs, block.column, block.row);
  }
  return packed;
}

template <typename A>
struct BackwardWeights {
  Packed<A> from_dec, enc, posterior, dec, written;
};

// The gradients that come in; without data where there is none.
struct Incoming {
  Input<1> dnll;
  Input<2> dkl;
  Input<4> dcanvas;
  Input<5> dframes;
};

struct Wanted {
  bool image, labels, noise;
};

template <typename A>
class Backward : Recurrence<A> {
  using Base = Recurrence<A>;
  using Base::at_, Base::columns_, Base::options_, Base::record_, Base::schedule_, Base::given_, Base::linears_;
  std::optional<BackwardWeights<A>> weights_;
  const Intervals from_dec_gaps_, posterior_gaps_, written_gaps_;
  const Incoming incoming_;
  const Wanted wanted_;
  // A row for every sample and step.
  const Buffer<A> from_dec_rows_, posterior_rows_, written_rows_;
  const Rows<A> dfrom_dec_, dposterior_, dwritten_;
  // A row for every sample.
  Matrix<A> dh_dec_, dc_dec_, dh_enc_, dc_enc_, dzy_, dglimpse_, dcanvas_, dkeys_, dvalues_, dalign_v_, dimage_;
  const Output dnoise_;

 public:
  Backward(
      const RolloutArguments& given, const Tensor& saved, const Incoming& incoming, const Wanted& wanted,
      const Output& dnoise)
      : Base(given, true),
        weights_(
            BackwardWeights<A>{
                pack_backward<A>(linears_.from_dec, given), pack_backward<A>(linears_.enc, given),
                pack_backward<A>(linears_.posterior, given), pack_backward<A>(linears_.dec, given),
                pack_backward<A>(linears_.written, given)}),
        from_dec_gaps_(output_gaps(linears_.from_dec)),
        posterior_gaps_(output_gaps(linears_.posterior)),
        written_gaps_(output_gaps(linears_.written)),
        incoming_(incoming),
        wanted_(wanted),
        from_dec_rows_(schedule_.rows() * linears_.from_dec.outputs),
        posterior_rows_(schedule_.rows() * linears_.posterior.outputs),
        written_rows_(schedule_.rows() * linears_.written.outputs),
        dfrom_dec_{from_dec_rows_.get(), linears_.from_dec.outputs},
        dposterior_{posterior_rows_.get(), linears_.posterior.outputs},
        dwritten_{written_rows_.get(), linears_.written.outputs},
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
        dimage_(wanted.image ? at_.B : 0, at_.pixels()),
        dnoise_(dnoise) {
    STD_TORCH_CHECK(
        saved.size(0) >= schedule_.rows(), "saved must have ", schedule_.rows(), " rows, got ", saved.size(0));
    record_.lay_out(static_cast<A*>(saved.mutable_data_ptr()), saved.size(0), at_);
  }

  void run() {
    this->for_groups([&](const Group& group) {
      this->for_samples(
          group, group.count(at_.B), 3 * at_.pixels(), [&](int64_t place, auto& by) { start(place, by); });
      for (int64_t t = at_.T - 1; t >= 0; --t) step(group, t);
      // What flows into the learned states before the first step.
      const int64_t n = group.count(schedule_.count(0));
      if (n == 0) return;
      apply(group, n, weights_->from_dec, at(dfrom_dec_, group, 0), 0, own(dh_dec_, group));
      if (!at_.encoder) return;
      apply(group, n, weights_->enc, at(dfrom_dec_, group, 0).from(columns_.enc), columns_.h_enc, own(dh_enc_, group));
    });
    weights_.reset();  // makes room for their gradients
  }

  std::vector<Tensor> weight_gradients() {
    WeightGradients<A> gradients(given_);
    const int64_t rows = schedule_.rows(), U = at_.U, items = at_.B * at_.L;
    const auto packed = [&](const Rows<A>& part, int64_t columns) {
      return PackedRows<A>(rows, columns, part.data, part.ld);
    };
    const auto each_sample = [](Matrix<A>& matrix) { return Rows<A>{matrix.row(0), matrix.ld()}; };
    const std::vector<int64_t> before = schedule_.rows_before();
    gradients.add(
        linears_.from_dec, {rows, U, record_.h_dec.data, record_.h_dec.ld, &before, this->h0_dec_.row(0)}, dfrom_dec_);
    gradients.add(linears_.written, packed(record_.h_dec, U), dwritten_);
    gradients.add(linears_.dec, packed(record_.zy, linears_.dec.inputs), dfrom_dec_.from(columns_.dec));
    gradients.add_sum(kH0Dec, U, each_sample(dh_dec_), at_.B);
    gradients.add_sum(kCanvas0, at_.pixels(), each_sample(dcanvas_), at_.B);
    if (at_.encoder) {
      gradients.add(linears_.enc, packed(record_.x, linears_.enc.inputs), dfrom_dec_.from(columns_.enc));
      gradients.add(linears_.posterior, packed(record_.h_enc, U), dposterior_);
      gradients.add_sum(kH0Enc, U, each_sample(dh_enc_), at_.B);
    }
    if (at_.L > 0) {
      const Linear keys{at_.D, at_.A, {{kAlignKey, 0, at_.D, at_.A, 0, 0}}, {}};
      gradients.add(keys, {items, at_.D, this->labels_.get(), at_.D}, Rows<A>{dkeys_.row(0), at_.A});
      gradients.add_sum(kAlignV, at_.A, each_sample(dalign_v_), at_.B);
    }
    return gradients.finish();
  }

  void store_image(const Output& dimage) const {
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
          {at_.L, at_.A, 0, panels<A>(at_.D), at_.A, sum.ld()}, 0, dkeys_.row(0) + place * at_.L * at_.A, nullptr,
          sum.row(0));
      for (int64_t l = 0; l < at_.L; ++l) {
        const A* values = dvalues_.row(0) + (place * at_.L + l) * at_.D;
        for (int64_t d = 0; d < at_.D; ++d) sum.row(l)[d] += values[d];
      }
      dlabels.store(sum.row(0), sum.ld(), at_.L, at_.D, schedule_.order[place] * at_.L * at_.D);
    }
  }

 private:
  // The first row of a group at a step, or of its samples.
  Rows<A> at(const Rows<A>& part, const Group& group, int64_t t) const {
    return {part.row(this->row(t, group.begin)), part.ld};
  }
  static Rows<A> own(Matrix<A>& part, const Group& group) { return {part.row(group.begin), part.ld()}; }

  // to = dresult W, or with `add` to += dresult W, from a column of what W multiplied on.
  void apply(
      const Group& group, int64_t n, const Packed<A>& by, const Rows<A>& dresult, int64_t column, const Rows<A>& to,
      bool add = false) const {
    this->multiply(group, n, dresult.data, dresult.ld, by, column, to.ld, nullptr, to, add);
  }

  // The gradient of the canvas after the last step of a sample.
  void start(int64_t place, Worker<A>& by) {
    const int64_t b = schedule_.order[place], steps = schedule_.steps(place);
    A* dcanvas = dcanvas_.row(place);
    if (at_.encoder) {
      A dnll;
      incoming_.dnll.load(&dnll, 1, 1, 1, b);
      A* dimage = wanted_.image ? dimage_.row(place) : nullptr;
      bernoulli_nll_row_bwd(at_.pixels(), dnll, this->canvas(place, steps), this->image(place), dcanvas, dimage);
    }
    if (incoming_.dcanvas.data != nullptr) add_image(incoming_.dcanvas, by, dcanvas, b);
    for (int64_t t = steps; incoming_.dframes.data != nullptr && t < at_.T; ++t) {
      add_image(incoming_.dframes, by, dcanvas, t, b);
    }
  }

  template <size_t D, typename... Index>
  void add_image(const Input<D>& from, Worker<A>& by, A* to, Index... index) const {
    const int64_t size = at_.H * at_.W;
    for (int64_t c = 0; c < at_.C; ++c) from.load(by.canvas.row(0) + c * size, at_.W, at_.H, at_.W, index..., c);
    for (int64_t k = 0; k < at_.pixels(); ++k) to[k] += by.canvas.row(0)[k];
  }

  void step(const Group& group, int64_t t) {
    const int64_t n = group.count(schedule_.count(t)), next = group.count(schedule_.count(t + 1));
    if (n == 0) return;
    const Rows<A> dfrom_dec = at(dfrom_dec_, group, t);
    const Rows<A> dnext = next > 0 ? at(dfrom_dec_, group, t + 1) : Rows<A>{};

    this->for_samples(
        group, n, 2 * this->glimpse_cost(at_.n_write), [&](int64_t place, auto& by) { write_bwd(t, place, by); });
    apply(group, n, weights_->written, at(dwritten_, group, t), 0, own(dh_dec_, group));
    if (next > 0) apply(group, next, weights_->from_dec, dnext, 0, own(dh_dec_, group), true);
    this->for_samples(group, n, 40 * at_.U, [&](int64_t place, auto&) {
      lstm_bwd(t, place, columns_.dec, record_.c_dec, dh_dec_, dc_dec_);
    });
    apply(group, n, weights_->dec, dfrom_dec.from(columns_.dec), 0, own(dzy_, group));
    this->for_samples(group, n, 20 * at_.L * at_.A + 50 * at_.Z, [&](int64_t place, auto& by) {
      if (at_.L > 0) attend_to_labels_bwd(t, place, by);
      sample_bwd(t, place, by);
    });
    if (!at_.encoder) return;
    apply(group, n, weights_->posterior, at(dposterior_, group, t), 0, own(dh_enc_, group));
    if (next > 0) {
      apply(group, next, weights_->enc, dnext.from(columns_.enc), columns_.h_enc, own(dh_enc_, group), true);
    }
    this->for_samples(group, n, 40 * at_.U, [&](int64_t place, auto&) {
      lstm_bwd(t, place, columns_.enc, record_.c_enc, dh_enc_, dc_enc_);
    });
    apply(group, n, weights_->enc, dfrom_dec.from(columns_.enc), 0, own(dglimpse_, group));
    this->for_samples(
        group, n, 3 * this->glimpse_cost(2 * at_.n_read), [&](int64_t place, auto& by) { read_bwd(t, place, by); });
  }

  void write_bwd(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place);
    A *dcanvas = dcanvas_.row(place), *dwritten = dwritten_.row(i);
    zero(from_dec_gaps_, dfrom_dec_.row(i));
    zero(written_gaps_, dwritten);
    if (at_.encoder) zero(posterior_gaps_, dposterior_.row(i));
    if (incoming_.dframes.data != nullptr) add_image(incoming_.dframes, by, dcanvas, t, schedule_.order[place]);
    if (by.writer) {
      const A* written = record_.written.row(i);
      by.writer->set_window(written + columns_.write_window, given_.dtype);
      by.writer->write_bwd(dcanvas, written, dwritten, dwritten + columns_.write_window);
    } else {
      std::copy_n(dcanvas, at_.pixels(), dwritten);
    }
  }

  static void zero(const Intervals& gaps, A* row) {
    for (const auto& [column, columns] : gaps) std::fill_n(row + column, columns, A{0});
  }

  void lstm_bwd(int64_t t, int64_t place, int64_t gates, const Rows<A>& cells, const Matrix<A>& dh, Matrix<A>& dc) {
    const int64_t i = this->row(t, place);
    lstm_row_bwd(
        at_.U, record_.from_dec.row(i) + gates, this->cell_before(cells, t, place), cells.row(i), dh.row(place),
        dc.row(place), dfrom_dec_.row(i) + gates);
  }

  void attend_to_labels_bwd(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place), length = this->length(place);
    const A *query = record_.from_dec.row(i) + columns_.query, *keys = this->keys(place), *values = this->labels(place);
    const A* v = this->align_v_.row(0);
    // The weights of the attention are a few numbers and are made again.
    attend(length, at_.A, at_.D, query, keys, values, v, by.weights.row(0), by.context.row(0));
    attend_bwd(
        length, at_.A, at_.D, dzy_.row(place) + at_.Z, nullptr, query, keys, values, v, by.weights.row(0),
        dfrom_dec_.row(i) + columns_.query, dkeys_.row(0) + place * at_.L * at_.A,
        dvalues_.row(0) + place * at_.L * at_.D, dalign_v_.row(place), by.sums.row(0));
  }

  void sample_bwd(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place), b = schedule_.order[place], Z = at_.Z;
    const A* prior = record_.from_dec.row(i) + columns_.prior;
    A* dprior = dfrom_dec_.row(i) + columns_.prior;
    A* dnoise = wanted_.noise ? by.dnoise.row(0) : nullptr;
    this->noise_.load(by.noise.row(0), Z, 1, Z, t, b);
    if (at_.encoder) {
      const A* posterior = record_.posterior.row(i);
      A *dposterior = dposterior_.row(i), dkl;
      incoming_.dkl.load(&dkl, 1, 1, 1, t, b);
      gaussian_kl_row_bwd(
          Z, dkl, posterior, posterior + Z, prior, prior + Z, dposterior, dposterior + Z, dprior, dprior + Z);
      sample_row_bwd(Z, dzy_.row(place), posterior + Z, by.noise.row(0), dposterior, dposterior + Z, dnoise);
      if (options_.log_variance) scale_row(Z, A(0.5), dposterior + Z);
    } else {
      std::fill_n(dprior, 2 * Z, A{0});
      sample_row_bwd(Z, dzy_.row(place), prior + Z, by.noise.row(0), dprior, dprior + Z, dnoise);
    }
    if (dnoise != nullptr) dnoise_.store(dnoise, 1, 1, Z, (t * at_.B + b) * Z);
    finish_prior_bwd(t, prior, dprior);
  }

  void finish_prior_bwd(int64_t t, const A* prior, A* dprior) const {
    const int64_t Z = at_.Z;
    if (options_.standard_first && t == 0) std::fill_n(dprior, 2 * Z, A{0});
    if (options_.log_variance) scale_row(Z, A(0.5), dprior + Z);
    for (int64_t k = 0; options_.tanh_prior && k < 2 * Z; ++k) {
      const A value = options_.log_variance && k >= Z ? 2 * prior[k] : prior[k];
      dprior[k] *= 1 - value * value;
    }
  }

  void read_bwd(int64_t t, int64_t place, Worker<A>& by) {
    const int64_t i = this->row(t, place), pixels = at_.pixels();
    const A *dglimpse = dglimpse_.row(place), *image = this->image(place), *canvas = this->canvas(place, t);
    A *dimage = wanted_.image ? dimage_.row(place) : nullptr, *dcanvas = dcanvas_.row(place);
    if (by.reader) {
      by.reader->set_window(record_.from_dec.row(i) + columns_.read_window, given_.dtype);
      by.reader->read_bwd(dglimpse, image, canvas, dimage, dcanvas, dfrom_dec_.row(i) + columns_.read_window);
      return;
    }
    for (int64_t k = 0; dimage != nullptr && k < pixels; ++k) dimage[k] += dglimpse[k];
    make_error(1, pixels, image, canvas, by.canvas.row(0), by.slope.row(0), pixels);
    error_gradient(1, pixels, dglimpse + pixels, by.slope.row(0), pixels, dimage, dcanvas);
  }
};

// Gradients of the image (with an encoder), the labels and the noise, and of every weight.
template <typename A>
std::vector<Tensor> run_backward(
    const char* op, const RolloutArguments& given, const Tensor& saved, const Incoming& incoming,
    const Wanted& wanted) {
  const Tensor& noise = *given.noise;
  const Sizes& at = given.sizes;
  check_dim(op, "saved", saved, 2);
  STD_TORCH_CHECK(saved.size(0) > 0 || at.B == 0, op, ": nothing was saved: the forward call had saved_rows = 0");
  check_tensor(op, "saved", saved, compute_dtype<A>, {saved.size(0), record_width<A>(at)});
  STD_TORCH_CHECK(saved.is_contiguous(), op, ": saved must be contiguous");

  const Tensor dimage = wanted.image ? new_empty(noise, {at.B, at.C, at.H, at.W}) : new_empty(noise, {0});
  const Tensor dlabels = wanted.labels ? new_empty(noise, {at.B, at.L, at.D}) : new_empty(noise, {0});
  Tensor dnoise = wanted.noise ? new_empty(noise, {at.T, at.B, at.Z}) : new_empty(noise, {0});
  dnoise = torch::stable::zero_(dnoise);  // of the steps that a sample does not take
  Backward<A> backward(given, saved, incoming, wanted, dnoise);
  backward.run();
  if (wanted.image) backward.store_image(dimage);
  if (wanted.labels) backward.store_labels(dlabels);
  std::vector<Tensor> results = backward.weight_gradients();
  results.insert(results.begin(), {dlabels, dnoise});
  if (at.encoder) results.insert(results.begin(), dimage);
  return results;
}

void draw_rollout_bwd(StableIValue* stack, uint64_t, uint64_t) {
  const char* op = "draw_rollout_bwd";
  Stack from(stack);
  const Tensor dnll = from.tensor(), dkl = from.tensor(), dcanvas = from.tensor(), saved = from.tensor();
  const RolloutArguments given = take_arguments(op, from, true);
  const Wanted wanted{from.flag(), from.flag(), from.flag()};
  const Sizes& at = given.sizes;
  check_tensor(op, "dnll", dnll, given.dtype, {at.B});
  check_tensor(op, "dkl", dkl, given.dtype, {at.T, at.B});
  check_tensor(op, "dcanvas", dcanvas, given.dtype, {at.B, at.C, at.H, at.W});
  with_compute_type(op, given.dtype, [&](auto compute) {
    give(stack, run_backward<decltype(compute)>(op, given, saved, {dnll, dkl, dcanvas, {}}, wanted));
  });
}

void draw_generate_bwd(StableIValue* stack, uint64_t, uint64_t) {
  const char* op = "draw_generate_bwd";
  Stack from(stack);
  const Tensor dcanvas = from.tensor(), saved = from.tensor();
  const RolloutArguments given = take_arguments(op, from, false);
  const bool frames = from.flag();
  const Wanted wanted{false, from.flag(), from.flag()};
  const Sizes& at = given.sizes;
  Incoming incoming{};
  if (frames) {
    check_tensor(op, "dcanvas", dcanvas, given.dtype, {at.T, at.B, at.C, at.H, at.W});
    incoming.dframes = dcanvas;
  } else {
    check_tensor(op, "dcanvas", dcanvas, given.dtype, {at.B, at.C, at.H, at.W});
    incoming.dcanvas = dcanvas;
  }
  with_compute_type(op, given.dtype, [&](auto compute) {
    give(stack, run_backward<decltype(compute)>(op, given, saved, incoming, wanted));
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(fastdraw, CPU, m) {
  m.impl("draw_rollout_bwd", &draw_rollout_bwd);
  m.impl("draw_generate_bwd", &draw_generate_bwd);
}

}  // namespace fastdraw
