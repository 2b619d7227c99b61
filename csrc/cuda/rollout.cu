// The whole recurrence of (conditional) DRAW forward, in one launch. One step of a group of blocks; "|" is a barrier of
// the group, and what stands behind ".." is done between arriving there and waiting:
//
//   heads = h_dec W + b                                                | .. prior, parts of all gates = h_dec W + b
//   sample by sample: canvas += write (of the step before), x = read, y = attention   |
//   gates += x W;  h_enc, c = LSTM                                     |
//   posterior = h_enc W + b;  z, kl                                    | .. part of the next gates = h_enc W
//   gates += [z, y] W;  h_dec, c = LSTM                                |
//
// draw_generate draws z from the prior in the first of these, and leaves the third and the fourth out.
//
// A block holds its slice of every weight in shared memory from the first step to the last, the gates and cells of its
// units, and the canvases of its samples. Per step it reads what the group has exchanged, 2 U + 2 U + glimpse + Z + D
// numbers of each sample, and writes its share of them.
// Deterministic: every number is computed by one thread, or by a warp in one order; the parts of a sample's KL, one of
// each block, are added up in the order of the blocks.
#include "cuda/rollout.h"

#include "cuda/latent.h"
#include "cuda/launch.h"
#include "cuda/likelihood.h"
#include "cuda/lstm.h"
#include "cuda/persistent.h"

namespace fastdraw {
namespace {

// What a block needs for one sample, one after the other.
struct Read {
  float* window;
  BlockGlimpse<float> glimpse;
  FASTDRAW_HD Read(Arena& arena, const Plan& plan) : window(arena.take<float>(5)), glimpse(arena, plan.reader) {}
};

struct Write {
  float *patch, *window;  // one behind the other
  BlockGlimpse<float> glimpse;
  FASTDRAW_HD Write(Arena& arena, const Sizes& at, const Plan& plan)
      : patch(arena.take<float>(at.patch() + 5)), window(patch + at.patch()), glimpse(arena, plan.writer) {}
};

struct Attend {
  float* query;
  BlockAttention<float> attention;
  FASTDRAW_HD Attend(Arena& arena, const Sizes& at)
      : query(arena.take<float>(at.A)), attention(arena, at.L, at.A, at.D, false) {}
};

int64_t bytes_of_a_sample(const Sizes& at, const Plan& plan) {
  Arena read, write, attend;
  if (at.n_read > 0) (void)Read(read, plan);
  if (at.n_write > 0) (void)Write(write, at, plan);
  if (at.L > 0) (void)Attend(attend, at);
  return static_cast<int64_t>(std::max({read.used(), write.used(), attend.used()}));
}

// The shared memory of a block.
template <typename P>
struct ForwardMemory {
  Owned own;
  Slices<P, kForwardSlices> slices;
  Shared<float> heads, from_dec, enc, posterior;  // what products make; from_dec: prior, then the decoder's gates
  Shared<float> c_dec, c_enc, noise, canvases;
  size_t used;  // of shared memory; the rest of it is scratch memory, for the inputs of a product, or for a sample

  FASTDRAW_HD ForwardMemory(Arena arena, const RolloutInputs& in, const Plan& plan, int k)
      : own(in.at, plan.blocks, k),
        slices(arena, [&](int slice, const auto& visit) { forward_pieces(slice, in.at, own, visit); }) {
    const int n = padded_samples(plan.samples), units = own.units.size(), latents = own.latents.size();
    const auto rows = [&](int count) { return arena.take<float>(int64_t{count} * n); };
    heads = rows(own.heads.size());
    from_dec = rows(2 * latents + 4 * units);
    enc = rows(in.at.encoder ? 4 * units : 0);
    posterior = rows(in.at.encoder ? 2 * latents : 0);
    c_dec = rows(units);
    c_enc = rows(in.at.encoder ? units : 0);
    noise = rows(latents);
    canvases = arena.take<float>(in.at.pixels() * divide_up(plan.samples, plan.blocks));
    used = arena.used();
  }
};

template <typename P>
class Forward : Member<ForwardMemory<P>> {
  using Base = Member<ForwardMemory<P>>;
  using Base::copy, Base::scratch;
  using Base::in_, Base::at_, Base::plan_, Base::block_, Base::group_, Base::memory_, Base::n_, Base::ld_;
  using Base::sample_of, Base::kept_row, Base::pixels, Base::taken, Base::steps, Base::each, Base::each_own_sample;

  const RolloutForward<P>& call_;
  const RolloutRecord<P>& record_;
  GroupBarrier barrier_;

 public:
  FASTDRAW_DEVICE explicit Forward(const RolloutForward<P>& call)
      : Base(call.in, call.plan),
        call_(call),
        record_(call.record),
        barrier_(call.counters + group_.index * kCounterStride, group_.blocks) {}

  FASTDRAW_DEVICE void run() {
    memory_.slices.load(block_, in_, [&](int slice, const auto& visit) { forward_pieces(slice, at_, own(), visit); });
    start();
    barrier_.sync(block_);
    if (at_.encoder) recur(0);
    const int last = steps();
    for (int t = 0; t < last; ++t) {
      make_heads(t);
      if (!at_.encoder) from_dec(t), imagine(t);
      barrier_.arrive(block_);
      if (at_.encoder) from_dec(t);
      barrier_.wait(block_);
      each_own_sample([&](int s, int place) {
        draw(t, s, canvas(place));
        if (at_.encoder) look(t, s, canvas(place));
        if (at_.L > 0) attend(t, s);
      });
      barrier_.sync(block_);
      if (at_.encoder) {
        product(kGlimpseSlice, {0, dec_rows()}, record_.x, t, at_.glimpse(), memory_.enc, true);
        encode(t);
        barrier_.sync(block_);
        product(kFromEncSlice, {0, prior_rows()}, record_.h_enc, t + 1, at_.U, memory_.posterior, false);
        sample(t);
        barrier_.arrive(block_);
        recur(t + 1);
        barrier_.wait(block_);
      }
      product(kZySlice, {0, dec_rows()}, record_.zy, t, at_.Z + at_.D, dec_gates(), true);
      decode(t);
      barrier_.sync(block_);
    }
    make_heads(last);
    barrier_.sync(block_);
    each_own_sample([&](int s, int place) {
      draw(last, s, canvas(place));
      finish(last, s, canvas(place));
    });
  }

 private:
  // Row of step t and sample s, where rows of two steps serve in turn unless all are kept.
  FASTDRAW_DEVICE int64_t row(int t, int s) const { return call_.keep ? kept_row(t, s) : kept_row(t % 2, s); }
  FASTDRAW_DEVICE const Owned& own() const { return memory_.own; }
  FASTDRAW_DEVICE int prior_rows() const { return 2 * own().latents.size(); }
  FASTDRAW_DEVICE int dec_rows() const { return 4 * own().units.size(); }
  FASTDRAW_DEVICE float* canvas(int place) const { return memory_.canvases + place * pixels(); }
  FASTDRAW_DEVICE float* dec_gates() const { return memory_.from_dec + prior_rows() * ld_; }
  FASTDRAW_DEVICE float from_dec_bias(int row) const { return memory_.slices.bias[kFromDecSlice][row]; }

  FASTDRAW_DEVICE void product(
      ForwardSlice slice, Range rows, const P* from, int t, int64_t width, float* to, bool add) const {
    const int64_t apart = padded(width);
    fastdraw::product(
        block_, memory_.slices.of[slice], rows, from + row(t, 0) * apart, apart, n_, Staging<P>(scratch(), plan_.chunk),
        to, add);
  }

  FASTDRAW_DEVICE void start() const {
    each_own_sample([&](int, int place) { copy(in_.weights[kCanvas0], canvas(place), pixels()); });
    each(own().units.size(), [&](int u, int s) {
      const int unit = own().units.begin + u;
      memory_.c_dec[u * ld_ + s] = 0;
      narrow(in_.weights[kH0Dec][unit], record_.h_dec[row(0, s) * padded(at_.U) + unit]);
      if (!at_.encoder) return;
      memory_.c_enc[u * ld_ + s] = 0;
      narrow(in_.weights[kH0Enc][unit], record_.h_enc[row(0, s) * padded(at_.U) + unit]);
    });
  }

  // From h_dec before step t: what the samples' blocks wait for.
  FASTDRAW_DEVICE void make_heads(int t) const {
    const int count = own().heads.size(), columns = Heads(at_).columns;
    product(kHeadsSlice, {0, count}, record_.h_dec, t, at_.U, memory_.heads, false);
    each(count, [&](int r, int s) {
      record_.heads[row(t, s) * columns + own().heads.begin + r] =
          memory_.heads[r * ld_ + s] + memory_.slices.bias[kHeadsSlice][r];
    });
  }

  // And what stays here: the prior, and parts of the gates.
  FASTDRAW_DEVICE void from_dec(int t) const {
    const int rows = prior_rows() + dec_rows();
    product(kFromDecSlice, {0, rows}, record_.h_dec, t, at_.U, memory_.from_dec, false);
    if (at_.encoder) product(kFromDecSlice, {rows, rows + dec_rows()}, record_.h_dec, t, at_.U, memory_.enc, true);
    each(own().latents.size(), [&](int j, int s) {
      const int64_t at = kept_row(t, s) * at_.Z + own().latents.begin + j;
      memory_.noise[j * ld_ + s] = in_.noise[at];
      float mu = memory_.from_dec[2 * j * ld_ + s] + from_dec_bias(2 * j);
      float log_sigma = memory_.from_dec[(2 * j + 1) * ld_ + s] + from_dec_bias(2 * j + 1);
      const Options& options = in_.options;
      if (options.tanh_prior) mu = std::tanh(mu), log_sigma = std::tanh(log_sigma);
      if (options.log_variance) log_sigma /= 2;
      if (options.standard_first && t == 0) mu = log_sigma = 0;
      memory_.from_dec[2 * j * ld_ + s] = mu;
      memory_.from_dec[(2 * j + 1) * ld_ + s] = log_sigma;
      if (record_.prior != nullptr) keep_latent(record_.prior, t, s, j, mu, log_sigma);
    });
  }

  FASTDRAW_DEVICE void keep_latent(float* to, int t, int s, int j, float mu, float log_sigma) const {
    float* const at = to + kept_row(t, s) * 2 * at_.Z + own().latents.begin + j;
    at[0] = mu;
    at[at_.Z] = log_sigma;
  }

  // Generating: z from the prior.
  FASTDRAW_DEVICE void imagine(int t) const {
    each(own().latents.size(), [&](int j, int s) {
      const float* const prior = memory_.from_dec + 2 * j * ld_ + s;
      put_latent(t, s, j, fastdraw::sample(Gaussian<float>{prior[0], prior[ld_]}, memory_.noise[j * ld_ + s]).z);
    });
  }

  // 0 for a step that is not taken: what is kept of it is multiplied by gradients of 0.
  FASTDRAW_DEVICE void put_latent(int t, int s, int j, float z) const {
    narrow(t < taken(s) ? z : 0.0f, record_.zy[row(t, s) * padded(at_.Z + at_.D) + own().latents.begin + j]);
  }

  // What step t - 1 has written joins the canvas.
  FASTDRAW_DEVICE void draw(int t, int s, float* canvas) const {
    if (t > 0 && t <= taken(s)) write(record_.heads + row(t, s) * Heads(at_).columns + Heads(at_).patch, canvas);
    if (t > 0 && record_.canvas != nullptr) copy(canvas, record_.canvas + kept_row(t - 1, s) * pixels(), pixels());
    if (t > 0 && call_.frames != nullptr) copy(canvas, call_.frames + kept_row(t - 1, s) * pixels(), pixels());
  }

  // patch: and its window behind it.
  FASTDRAW_DEVICE void write(const float* patch, float* canvas) const {
    if (at_.n_write == 0) {
      block_.each(pixels(), [&](int i) { canvas[i] += fetch(patch + i); });
      return;
    }
    Arena arena = scratch();
    Write task(arena, at_, plan_);
    fetch_row(block_, patch, static_cast<int>(at_.patch()) + 5, task.patch);
    task.glimpse.template set_window<float>(block_, task.window);
    task.glimpse.write(block_, task.patch, canvas, canvas);
  }

  // What the encoder sees.
  FASTDRAW_DEVICE void look(int t, int s, const float* canvas) const {
    const float* const image = in_.image + sample_of(s) * pixels();
    P* const x = record_.x + row(t, s) * padded(at_.glimpse());
    if (at_.n_read == 0) {
      block_.each(pixels(), [&](int i) {
        narrow(image[i], x[i]);
        narrow(image[i] - sigmoid(canvas[i]).value, x[pixels() + i]);
      });
      return;
    }
    Arena arena = scratch();
    Read task(arena, plan_);
    fetch_row(block_, record_.heads + row(t, s) * Heads(at_).columns + Heads(at_).read_window, 5, task.window);
    task.glimpse.template set_window<float>(block_, task.window);
    task.glimpse.read(block_, image, canvas, x);
  }

  FASTDRAW_DEVICE void attend(int t, int s) const {
    Arena arena = scratch();
    const Attend task(arena, at_);
    const int64_t b = sample_of(s);
    const int length = in_.lengths.of(b, static_cast<int>(at_.L));
    fetch_row(
        block_, record_.heads + row(t, s) * Heads(at_).columns + Heads(at_).query, static_cast<int>(at_.A), task.query);
    task.attention.attend(
        block_, task.query, in_.keys + b * at_.L * at_.A, in_.labels + b * at_.L * at_.D, in_.weights[kAlignV], length,
        record_.zy + row(t, s) * padded(at_.Z + at_.D) + at_.Z, static_cast<float*>(nullptr));
  }

  // An LSTM's units from the sums of their gates; a step's h is row t + 1.
  template <typename Bias>
  FASTDRAW_DEVICE void lstm(
      int t, const float* gates, const Bias& bias, float* c, P* h, float* kept_gates, float* kept_c) const {
    each(own().units.size(), [&](int u, int s) {
      const auto gate = [&](int g) { return gates[(4 * u + g) * ld_ + s] + bias(4 * u + g); };
      const auto cell = lstm_cell(gate(0), gate(1), gate(2), gate(3), c[u * ld_ + s]);
      const int unit = own().units.begin + u;
      c[u * ld_ + s] = cell.c_next;
      narrow(cell.h(), h[row(t + 1, s) * padded(at_.U) + unit]);
      if (kept_gates == nullptr) return;
      const CellIndex at{kept_row(t, s), unit};
      kept_c[join_cell(at, at_.U)] = cell.c_next;
      for (int g = 0; g < 4; ++g) kept_gates[gate_offset(at, g, at_.U)] = gate(g);
    });
  }

  FASTDRAW_DEVICE void encode(int t) const {
    const int first = prior_rows() + dec_rows();
    const auto bias = [&](int r) { return from_dec_bias(first + r); };
    lstm(t, memory_.enc, bias, memory_.c_enc, record_.h_enc, record_.gates_enc, record_.c_enc);
  }

  FASTDRAW_DEVICE void decode(int t) const {
    const auto bias = [&](int r) { return from_dec_bias(prior_rows() + r); };
    lstm(t, dec_gates(), bias, memory_.c_dec, record_.h_dec, record_.gates_dec, record_.c_dec);
  }

  // The part of step t's gates that h_enc makes.
  FASTDRAW_DEVICE void recur(int t) const {
    product(kFromEncSlice, {prior_rows(), prior_rows() + dec_rows()}, record_.h_enc, t, at_.U, memory_.enc, false);
  }

  FASTDRAW_DEVICE void sample(int t) const {
    const float* const bias = memory_.slices.bias[kFromEncSlice];
    each(own().latents.size(), [&](int j, int s) {
      float *const first = memory_.posterior + 2 * j * ld_ + s, *const second = first + ld_;
      const float mu = *first + bias[2 * j];
      const float log_sigma = (*second + bias[2 * j + 1]) * (in_.options.log_variance ? 0.5f : 1.0f);
      const float* const prior = memory_.from_dec + 2 * j * ld_ + s;
      const Gaussian<float> q{mu, log_sigma}, p{prior[0], prior[ld_]};
      put_latent(t, s, j, fastdraw::sample(q, memory_.noise[j * ld_ + s]).z);
      if (record_.posterior != nullptr) keep_latent(record_.posterior, t, s, j, mu, log_sigma);
      *first = divergence(q, p).kl();
    });
    block_.each(n_, [&](int s) {
      float total = 0;
      for (int j = 0; j < own().latents.size(); ++j) total += memory_.posterior[2 * j * ld_ + s];
      call_.kl_parts[kept_row(t, s) * group_.blocks + group_.k] = total;
    });
  }

  // After the last step of the group: the results of one sample.
  FASTDRAW_DEVICE void finish(int last, int s, const float* canvas) const {
    const int64_t b = sample_of(s);
    copy(canvas, call_.canvas + b * pixels(), pixels());
    for (int t = last; call_.frames != nullptr && t < at_.T; ++t) {
      copy(canvas, call_.frames + kept_row(t, s) * pixels(), pixels());
    }
    if (!at_.encoder) return;
    const float* const image = in_.image + b * pixels();
    block_.each_warp(1, [&](int, const Warp& warp) {
      const float nll = warp.sum(pixels(), [&](int i) { return bernoulli(canvas[i], image[i]); });
      warp.each(1, [&](int) { call_.nll[b] = nll; });
    });
    block_.each(static_cast<int>(at_.T), [&](int t) {
      float total = 0;
      for (int k = 0; t < taken(s) && k < group_.blocks; ++k) {
        total += fetch(call_.kl_parts + kept_row(t, s) * group_.blocks + k);
      }
      call_.kl[kept_row(t, s)] = total;
    });
  }
};

template <typename P>
FASTDRAW_KERNEL(kRolloutThreads)
rollout_fwd_kernel(FASTDRAW_ARGUMENT RolloutForward<P> call) {
  Forward<P>(call).run();
}

}  // namespace

template <typename P>
Plan plan_forward(const RolloutInputs& in, int multiprocessors, int64_t shared) {
  return make_plan<P, ForwardMemory<P>>(in, false, multiprocessors, shared, bytes_of_a_sample);
}

template <typename P>
void launch_forward(const RolloutForward<P>& call, cudaStream_t stream) {
  const Plan& plan = call.plan;
  launch_cooperative(
      rollout_fwd_kernel<P>, int64_t{plan.groups} * plan.blocks, kRolloutThreads, plan.shared, stream, call);
}

#define INSTANTIATE(P)                                               \
  template Plan plan_forward<P>(const RolloutInputs&, int, int64_t); \
  template void launch_forward<P>(const RolloutForward<P>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__nv_bfloat16)
#undef INSTANTIATE

}  // namespace fastdraw
