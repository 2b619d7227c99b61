// The weights of a rollout, in the order of DrawWeights (fastdraw/reference/rollout.py), which says their shapes.
#pragma once

namespace fastdraw {

enum Weight {
  kAlignQuery,
  kAlignBias,
  kAlignKey,
  kAlignV,
  kReadWindow,
  kReadWindowBias,
  kEncIh,
  kEncHh,
  kEncBias,
  kPosterior,
  kPosteriorBias,
  kPrior,
  kPriorBias,
  kDecIh,
  kDecHh,
  kDecBias,
  kPatch,
  kPatchBias,
  kWriteWindow,
  kWriteWindowBias,
  kH0Enc,
  kH0Dec,
  kCanvas0,
  kWeights,  // how many there are
};

inline constexpr const char* kWeightNames[kWeights] = {
    "align_query", "align_bias", "align_key", "align_v",        "read_window",  "read_window_bias",  "enc_ih",
    "enc_hh",      "enc_bias",   "posterior", "posterior_bias", "prior",        "prior_bias",        "dec_ih",
    "dec_hh",      "dec_bias",   "patch",     "patch_bias",     "write_window", "write_window_bias", "h0_enc",
    "h0_dec",      "canvas0",
};

}  // namespace fastdraw
