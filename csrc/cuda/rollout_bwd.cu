// The whole recurrence of (conditional) DRAW backward, in one launch. Steps are taken in reverse and mirror those of
// rollout.cu. h_dec before step t, "row t", made the query and the read window of step t, and the patch and the write
// window of step t - 1. For t = T..0, "|" a barrier of the group, ".." between arriving there and waiting:
//
//   sample by sample: d read and d attention of step t, d write of step t - 1, all through the canvas: d heads   |
//   dh_dec += d heads W;  d gates = d LSTM of the decoder's step t - 1                       |
//   d [z, y] = d gates W;  d posterior, d prior = d sample and d KL                          | .. dh_dec += d gates W
//   dh_enc += d posterior W;  d gates = d LSTM of the encoder's step t - 1                   | .. dh_dec += d prior W
//   dx = d gates W                                                  | .. dh_dec += d gates W;  dh_enc += d gates W
//
// draw_generate leaves the last two out, but for dh_dec += d prior W.
//
// A block holds the columns of every weight that its units, latents, labels and columns of the glimpse are multiplied
// by, dh and dc of its units, and the gradients of the canvases of its samples. Filters, cells and attention weights
// are computed again from what the forward pass kept. The gradients of the weights, and of the states before the first
// step, are made after the launch, of all rows of what is written here. Per step a block reads what the group has
// exchanged, heads + 4 U + 2 Z + 2 Z + 4 U numbers of each sample, some of it twice, and of its own samples dx and dy;
// it writes its share of them. Deterministic: every number is computed by one thread, or by a warp in one order.
#include "cuda/latent.h"
#include "cuda/launch.h"
#include "cuda/likelihood.h"
#include "cuda/lstm.h"
#include "cuda/persistent.h"

namespace fastdraw {
namespace {

// What a block needs for one sample, one after the other.
struct ReadBack {
  float* dx;
  BlockGlimpse<float> glimpse;
  FASTDRAW_HD ReadBack(Arena& arena, const Sizes& at, const Plan& plan)
      : dx(arena.take<float>(at.glimpse())), glimpse(arena, plan.reader) {}
};

struct WriteBack {
  BlockGlimpse<float> glimpse;
  FASTDRAW_HD WriteBack(Arena& arena, const Plan& plan) : glimpse(arena, plan.writer) {}
};

struct AttendBack {
  float* dy;
  BlockAttention<float> attention;
  FASTDRAW_HD AttendBack(Arena& arena, const Sizes& at)
      : dy(arena.take<float>(at.D)), attention(arena, at.L, at.A, at.D, true) {}
};

int64_t bytes_of_a_sample(const Sizes& at, const Plan& plan) {
  Arena read, write, attend;
  if (at.n_read > 0) (void)ReadBack(read, at, plan);
  if (at.n_write > 0) (void)WriteBack(write, plan);
  if (at.L > 0) (void)AttendBack(attend, at);
  return static_cast<int64_t>(std::max({read.used(), write.used(), attend.used()}));
}

// The shared memory of a block.
template <typename P>
struct BackwardMemory {
  Owned own;
  Slices<P, kBackwardSlices> slices;
  Shared<float> dh, dc_dec, dc_enc;  // dh: what has reached h_dec so far, then what has reached h_enc
  Shared<float> made;                // by products: d [z, y], dx
  Shared<float> dcanvases;
  size_t used;  // of shared memory; the rest of it is scratch memory, for the inputs of a product, or for a sample

  FASTDRAW_HD BackwardMemory(Arena arena, const RolloutInputs& in, const Plan& plan, int k)
      : own(in.at, plan.blocks, k),
        slices(arena, [&](int slice, const auto& visit) { backward_pieces(slice, in.at, own, visit); }) {
    const int n = padded_samples(plan.samples), units = own.units.size(), encoder = in.at.encoder ? units : 0;
    const int zy = own.latents.size() + own.labels.size(), x = own.glimpse.size();
    dh = arena.take<float>(int64_t{units + encoder} * n);
    dc_dec = arena.take<float>(int64_t{units} * n);
    dc_enc = arena.take<float>(int64_t{encoder} * n);
    made = arena.take<float>(int64_t{zy > x ? zy : x} * n);
    dcanvases = arena.take<float>(in.at.pixels() * divide_up(plan.samples, plan.blocks));
    used = arena.used();
  }
};

template <typename P>
class Backward : Member<BackwardMemory<P>> {
  using Base = Member<BackwardMemory<P>>;
  using Base::copy, Base::scratch;
  using Base::in_, Base::at_, Base::plan_, Base::block_, Base::group_, Base::memory_, Base::n_, Base::ld_;
  using Base::sample_of, Base::kept_row, Base::pixels, Base::taken, Base::steps, Base::each, Base::each_own_sample;

  const RolloutBackward<P>& call_;
  const RolloutRecord<P>& record_;
  GroupBarrier barrier_;

 public:
  FASTDRAW_DEVICE explicit Backward(const RolloutBackward<P>& call)
      : Base(call.in, call.plan),
        call_(call),
        record_(call.record),
        barrier_(call.counters + group_.index * kCounterStride, group_.blocks) {}

  FASTDRAW_DEVICE void run() {
    memory_.slices.load(block_, in_, [&](int slice, const auto& visit) { backward_pieces(slice, at_, own(), visit); });
    start();
    for (int state = steps();; --state) {
      each_own_sample([&](int s, int place) { canvas_bwd(state, s, dcanvas(place)); });
      if (state == 0) break;
      const int t = state - 1;
      barrier_.sync(block_);
      product(kHeadsBack, call_.dheads, state, dh_dec(), true);
      lstm_bwd(t, dh_dec(), memory_.dc_dec, record_.gates_dec, record_.c_dec, call_.dgates_dec);
      barrier_.sync(block_);
      product(kZyBack, call_.dgates_dec, t, memory_.made, false);
      latent_bwd(t);
      exchange(own().labels, latents(), call_.dy, at_.D);
      barrier_.arrive(block_);
      product(kDecBack, call_.dgates_dec, t, dh_dec(), true);
      barrier_.wait(block_);
      if (at_.encoder) {
        product(kPosteriorBack, call_.dposterior, t, dh_enc(), true);
        lstm_bwd(t, dh_enc(), memory_.dc_enc, record_.gates_enc, record_.c_enc, call_.dgates_enc);
        barrier_.arrive(block_);
      }
      product(kPriorBack, call_.dprior, t, dh_dec(), true);
      if (at_.encoder) {
        barrier_.wait(block_);
        product(kGlimpseBack, call_.dgates_enc, t, memory_.made, false);
        exchange(own().glimpse, 0, call_.dx, at_.glimpse());
        barrier_.arrive(block_);
        product(kEncBack, call_.dgates_enc, t, memory_.dh, true);
        barrier_.wait(block_);
      }
    }
    each_own_sample(
        [&](int s, int place) { copy(dcanvas(place), call_.dcanvas0 + sample_of(s) * pixels(), pixels()); });
  }

 private:
  FASTDRAW_DEVICE float* dcanvas(int place) const { return memory_.dcanvases + place * pixels(); }
  FASTDRAW_DEVICE const Owned& own() const { return memory_.own; }
  FASTDRAW_DEVICE int units() const { return own().units.size(); }
  FASTDRAW_DEVICE int latents() const { return own().latents.size(); }
  FASTDRAW_DEVICE float* dh_dec() const { return memory_.dh; }
  FASTDRAW_DEVICE float* dh_enc() const { return memory_.dh + units() * ld_; }
  // Before step t.
  FASTDRAW_DEVICE const float* canvas(int t, int s) const {
    return t == 0 ? in_.weights[kCanvas0] : record_.canvas + kept_row(t - 1, s) * pixels();
  }

  // to (+)= rows t times the slice.
  FASTDRAW_DEVICE void product(BackwardSlice slice, const P* from, int t, float* to, bool add) const {
    const Slice<P>& of = memory_.slices.of[slice];
    const int64_t apart = padded(of.inputs);
    fastdraw::product(
        block_, of, {0, of.rows}, from + kept_row(t, 0) * apart, apart, n_, Staging<P>(scratch(), plan_.chunk), to,
        add);
  }

  // The samples' owners get columns of the step, which a product made in its rows from `row` on.
  FASTDRAW_DEVICE void exchange(Range columns, int row, float* to, int64_t width) const {
    each(columns.size(), [&](int i, int s) {
      to[sample_of(s) * width + columns.begin + i] = memory_.made[(row + i) * ld_ + s];
    });
  }

  FASTDRAW_DEVICE void start() const {
    each_own_sample([&](int s, int place) {
      const int last = taken(s);
      const int64_t first = sample_of(s) * pixels();
      block_.each(pixels(), [&](int i) {
        float sum = call_.dcanvas == nullptr ? 0.0f : call_.dcanvas[first + i];
        for (int t = last; call_.dframes != nullptr && t < at_.T; ++t) {
          sum += call_.dframes[kept_row(t, s) * pixels() + i];
        }
        if (at_.encoder) {
          const auto d = bernoulli_bwd(call_.dnll[sample_of(s)], canvas(last, s)[i], in_.image[first + i]);
          sum += d.logit;
          if (call_.dimage != nullptr) call_.dimage[first + i] = d.target;
        }
        dcanvas(place)[i] = sum;
      });
    });
    block_.each(units() * ld_, [&](int i) {
      dh_dec()[i] = memory_.dc_dec[i] = 0;
      if (at_.encoder) dh_enc()[i] = memory_.dc_enc[i] = 0;
    });
  }

  // What made the canvas before step t, and what step t made of it and of the labels. Writes row t of dheads, 0 for
  // steps that are not taken.
  FASTDRAW_DEVICE void canvas_bwd(int t, int s, float* dcanvas) const {
    const Heads at(at_);
    const float* const heads = record_.heads + kept_row(t, s) * at.columns;
    P* const dheads = call_.dheads + kept_row(t, s) * padded(at.columns);
    const bool reads = t < taken(s), writes = t > 0 && t <= taken(s);
    const int patch = at.patch;
    if (!reads) block_.each(patch, [&](int i) { narrow(0.0f, dheads[i]); });
    if (!writes) block_.each(at.columns - patch, [&](int i) { narrow(0.0f, dheads[patch + i]); });
    if (reads && at_.encoder) read_bwd(t, s, heads + at.read_window, dcanvas, dheads + at.read_window);
    if (reads && at_.L > 0) attend_bwd(s, heads + at.query, dheads + at.query);
    if (writes) write_bwd(t, s, heads + patch, dcanvas, dheads + patch);
  }

  FASTDRAW_DEVICE void read_bwd(int t, int s, const float* window, float* dcanvas, P* dwindow) const {
    const int64_t first = sample_of(s) * pixels();
    const float *const dx = call_.dx + sample_of(s) * at_.glimpse(), *const image = in_.image + first;
    float* const dimage = call_.dimage == nullptr ? nullptr : call_.dimage + first;
    if (at_.n_read == 0) {
      block_.each(pixels(), [&](int i) {
        const float derror = fetch(dx + pixels() + i);
        if (dimage != nullptr) dimage[i] += fetch(dx + i) + derror;
        dcanvas[i] -= derror * sigmoid(canvas(t, s)[i]).slope;
      });
      return;
    }
    Arena arena = scratch();
    ReadBack task(arena, at_, plan_);
    fetch_row(block_, dx, static_cast<int>(at_.glimpse()), task.dx);
    task.glimpse.template set_window<float>(block_, window);
    task.glimpse.template read_bwd<true>(block_, task.dx, image, canvas(t, s), dimage, dcanvas, dwindow);
  }

  FASTDRAW_DEVICE void attend_bwd(int s, const float* query, P* dquery) const {
    Arena arena = scratch();
    const AttendBack task(arena, at_);
    const int64_t b = sample_of(s), keys = b * at_.L * at_.A, labels = b * at_.L * at_.D;
    const int length = in_.lengths.of(b, static_cast<int>(at_.L));
    fetch_row(block_, call_.dy + b * at_.D, static_cast<int>(at_.D), task.dy);
    task.attention.attend_bwd(
        block_, task.dy, static_cast<const float*>(nullptr), query, in_.keys + keys, in_.labels + labels,
        in_.weights[kAlignV], length, dquery, call_.dkeys + keys, call_.dvalues + labels, call_.dalign_v + b * at_.A,
        true);
  }

  // dpatch: and that of its window behind it.
  FASTDRAW_DEVICE void write_bwd(int t, int s, const float* patch, float* dcanvas, P* dpatch) const {
    if (call_.dframes != nullptr) {
      const float* const dframe = call_.dframes + kept_row(t - 1, s) * pixels();
      block_.each(pixels(), [&](int i) { dcanvas[i] += dframe[i]; });
    }
    if (at_.n_write == 0) {
      block_.each(pixels(), [&](int i) { narrow(dcanvas[i], dpatch[i]); });
      return;
    }
    Arena arena = scratch();
    WriteBack task(arena, plan_);
    task.glimpse.template set_window<float>(block_, patch + at_.patch());
    task.glimpse.write_bwd(block_, dcanvas, patch, dpatch, dpatch + at_.patch());
  }

  // From dh and dc after step t to dc before it and the gradients of the gates; dh, passed on, is 0.
  FASTDRAW_DEVICE void lstm_bwd(int t, float* dh, float* dc, const float* gates, const float* c, P* dgates) const {
    each(units(), [&](int u, int s) {
      const int unit = own().units.begin + u, here = u * ld_ + s;
      const CellIndex at{kept_row(t, s), unit};
      CellGradients<float> d{};
      if (t < taken(s)) {
        const auto gate = [&](int g) { return gates[gate_offset(at, g, at_.U)]; };
        const float before = t == 0 ? 0.0f : c[join_cell({kept_row(t - 1, s), unit}, at_.U)];
        d = lstm_cell_bwd(dh[here], dc[here], lstm_cell(gate(0), gate(1), gate(2), gate(3), before), before);
      }
      dh[here] = 0;
      dc[here] = d.c;
      P* const to = dgates + at.b * padded(4 * at_.U) + unit;
      narrow(d.i, to[0]);
      narrow(d.f, to[at_.U]);
      narrow(d.g, to[2 * at_.U]);
      narrow(d.o, to[3 * at_.U]);
    });
  }

  FASTDRAW_DEVICE void latent_bwd(int t) const {
    each(latents(), [&](int j, int s) {
      const int64_t row = kept_row(t, s), unit = own().latents.begin + j;
      Gaussian<float> dq{}, dp{};
      float dnoise = 0;
      if (t < taken(s)) {
        const Gaussian<float> p = latent(record_.prior, row, unit);
        const Gaussian<float> q = at_.encoder ? latent(record_.posterior, row, unit) : p;
        const float dz = memory_.made[j * ld_ + s];
        dnoise = dz * std::exp(q.log_sigma);
        const Gaussian<float> of_sample{dz, dnoise * in_.noise[row * at_.Z + unit]};
        if (at_.encoder) {
          const auto difference = divergence(q, p);
          const float dkl = call_.dkl[row];
          dq = difference.dq(dkl), dp = difference.dp(dkl);
          dq.mu += of_sample.mu, dq.log_sigma += of_sample.log_sigma;
        } else {
          dp = of_sample;
        }
        finish_latent(t, p, dq, dp);
      }
      if (at_.encoder) put_latent(dq, call_.dposterior, row, unit);
      put_latent(dp, call_.dprior, row, unit);
      if (call_.dnoise != nullptr) call_.dnoise[row * at_.Z + unit] = dnoise;
    });
  }

  // Through the options, to what the products made.
  FASTDRAW_DEVICE void finish_latent(int t, const Gaussian<float>& p, Gaussian<float>& dq, Gaussian<float>& dp) const {
    const Options& options = in_.options;
    if (options.log_variance) dq.log_sigma /= 2, dp.log_sigma /= 2;
    if (options.tanh_prior) {
      const float second = options.log_variance ? 2 * p.log_sigma : p.log_sigma;
      dp.mu *= (1 - p.mu) * (1 + p.mu);
      dp.log_sigma *= (1 - second) * (1 + second);
    }
    if (options.standard_first && t == 0) dp = {};
  }

  FASTDRAW_DEVICE Gaussian<float> latent(const float* from, int64_t row, int64_t unit) const {
    const float* const at = from + row * 2 * at_.Z + unit;
    return {at[0], at[at_.Z]};
  }

  FASTDRAW_DEVICE void put_latent(const Gaussian<float>& d, P* to, int64_t row, int64_t unit) const {
    P* const at = to + row * padded(2 * at_.Z) + unit;
    narrow(d.mu, at[0]);
    narrow(d.log_sigma, at[at_.Z]);
  }
};

template <typename P>
FASTDRAW_KERNEL(kRolloutThreads)
rollout_bwd_kernel(FASTDRAW_ARGUMENT RolloutBackward<P> call) {
  Backward<P>(call).run();
}

}  // namespace

template <typename P>
Plan plan_backward(const RolloutInputs& in, int multiprocessors, int64_t shared) {
  return make_plan<P, BackwardMemory<P>>(in, true, multiprocessors, shared, bytes_of_a_sample);
}

template <typename P>
void launch_backward(const RolloutBackward<P>& call, cudaStream_t stream) {
  const Plan& plan = call.plan;
  launch_cooperative(
      rollout_bwd_kernel<P>, int64_t{plan.groups} * plan.blocks, kRolloutThreads, plan.shared, stream, call);
}

#define INSTANTIATE(P)                                                \
  template Plan plan_backward<P>(const RolloutInputs&, int, int64_t); \
  template void launch_backward<P>(const RolloutBackward<P>&, cudaStream_t);
INSTANTIATE(float)
INSTANTIATE(__nv_bfloat16)
#undef INSTANTIATE

}  // namespace fastdraw
