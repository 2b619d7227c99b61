"""Bad arguments: which error, which words. Every check of fastdraw.checks and fastdraw.ops is met here."""

from typing import Any

import pytest
import torch

from fastdraw import ops

from .cases import SMALL, Draw, Inputs

Z = torch.zeros
IMAGE, WINDOW = Z(4, 1, 8, 9), Z(4, 5)


def rollout(**changes: Any) -> dict[str, Any]:
    return {**Draw().rollout(Inputs("errors", torch.float32, "cpu")), **changes}


def weights(**changes: Any) -> dict[str, Any]:
    arguments = rollout()
    return {**arguments, "weights": arguments["weights"]._replace(**changes)}


ERRORS = [
    # tensors
    (
        "lstm_step",
        {"input": Z(4, 3), "state": Z(4, 2), "w_ih": Z(8, 3), "w_hh": Z(8, 2)},
        TypeError,
        "lstm_step: state must be a pair (h, c), got Tensor",
    ),
    (
        "glimpse_read",
        {"image": IMAGE, "window": Z(3, 5), "n": 2},
        ValueError,
        "glimpse_read: window must have shape (B, 5) with B = 4 (from image), got (3, 5)",
    ),
    (
        "glimpse_read",
        {"image": IMAGE, "window": Z(4, 6), "n": 2},
        ValueError,
        "glimpse_read: window must have shape (B, 5) with B = 4 (from image), got (4, 6)",
    ),
    (
        "glimpse_read",
        {"image": Z(8, 9), "window": WINDOW, "n": 2},
        ValueError,
        "glimpse_read: image must have shape (B, C, H, W), got (8, 9)",
    ),
    (
        "glimpse_read",
        {"image": [1.0], "window": WINDOW, "n": 2},
        TypeError,
        "glimpse_read: image must be a tensor, got list",
    ),
    (
        "glimpse_read",
        {"image": IMAGE.int(), "window": WINDOW, "n": 2},
        TypeError,
        "glimpse_read: image must be float32, bfloat16, float16 or float64, got int32",
    ),
    (
        "glimpse_read",
        {"image": IMAGE, "window": WINDOW.double(), "n": 2},
        TypeError,
        "glimpse_read: window is float64 and image is float32; give both one dtype, or call under torch.autocast",
    ),
    (
        "glimpse_read",
        {"image": IMAGE, "window": WINDOW.to("meta"), "n": 2},
        ValueError,
        "glimpse_read: window is on meta and image on cpu; move one of them",
    ),
    (
        "lstm_gates",
        {"gates": Z(2, 9), "c": Z(2, 2)},
        ValueError,
        "lstm_gates: gates must have shape (B, 4U), got (2, 9)",
    ),
    (
        "lstm_gates",
        {"gates": Z(2, 8), "c": Z(2, 3)},
        ValueError,
        "lstm_gates: c must have shape (B, U) with B = 2 (from gates), U = 2 (from gates), got (2, 3)",
    ),
    (
        "lstm_step",
        {"input": Z(2, 3), "state": (Z(2, 4), Z(2, 4)), "w_ih": Z(16, 3), "w_hh": Z(16, 4), "b_hh": Z(15)},
        ValueError,
        "lstm_step: b_hh must have shape (4U,) with U = 4 (from h), got (15,)",
    ),
    (
        "glimpse_write",
        {"patch": Z(2, 1, 3, 4), "window": Z(2, 5), "size": (5, 5)},
        ValueError,
        "glimpse_write: patch must have shape (B, C, N, N), got (2, 1, 3, 4)",
    ),
    (
        "glimpse_write",
        {"patch": Z(2, 1, 3, 3), "window": Z(2, 5), "size": (5, 6), "canvas": Z(2, 1, 6, 5)},
        ValueError,
        "glimpse_write: canvas must have shape (B, C, 5, 6) with B = 2 (from patch), C = 1 (from patch), got (2, 1, ",
    ),
    (
        "bernoulli_nll",
        {"logits": Z(()), "target": Z(())},
        ValueError,
        "bernoulli_nll: logits must have shape (B, ...), got ()",
    ),
    (
        "gaussian_nll",
        {"mean": Z(2, 3), "log_sigma": Z(2, 3), "target": Z(2, 4)},
        ValueError,
        "gaussian_nll: target must have shape (B, D1) with B = 2 (from mean), D1 = 3 (from mean), got (2, 4)",
    ),
    # options
    (
        "glimpse_read",
        {"image": IMAGE, "window": WINDOW, "n": 0},
        ValueError,
        "glimpse_read: n must be an integer of at least 1, got 0",
    ),
    (
        "glimpse_read",
        {"image": IMAGE, "window": WINDOW, "n": True},
        ValueError,
        "glimpse_read: n must be an integer of at least 1, got True",
    ),
    (
        "draw_read",
        {"image": IMAGE, "canvas": IMAGE, "window": WINDOW, "n": 2.0},
        ValueError,
        "draw_read: n must be an integer of at least 1, got 2.0",
    ),
    (
        "glimpse_read",
        {"image": IMAGE, "window": WINDOW, "n": 2, "stride": "both"},
        ValueError,
        "glimpse_read: stride must be 'max' or 'per_axis', got 'both'",
    ),
    *(
        (
            "glimpse_read",
            {"image": IMAGE, "window": WINDOW, "n": 2, "eps": eps},
            ValueError,
            f"glimpse_read: eps must be positive and finite, got {eps}",
        )
        for eps in (0.0, -1.0, float("inf"), float("nan"))
    ),
    (
        "glimpse_read",
        {"image": IMAGE, "window": WINDOW, "n": 2, "eps": "a"},
        ValueError,
        "glimpse_read: eps must be positive and finite, got 'a'",
    ),
    *(
        (
            "glimpse_write",
            {"patch": Z(4, 1, 2, 2), "window": WINDOW, "size": size},
            ValueError,
            f"glimpse_write: size must be (H, W) with both at least 1, got {size}",
        )
        for size in (5, (32.0, 64), (3, 4, 5))
    ),
    (
        "gaussian_filterbank",
        {"window": WINDOW, "n": 2, "size": (0, 3)},
        ValueError,
        "gaussian_filterbank: size must be (H, W) with both at least 1, got (0, 3)",
    ),
    (
        "glimpse_read",
        {"image": Z(4, 1, 0, 3), "window": WINDOW, "n": 2},
        ValueError,
        "glimpse_read: size must be (H, W) with both at least 1, got (0, 3)",
    ),
    # counts
    *(
        (
            "additive_attention",
            {"query": Z(2, 3), "keys": Z(2, 4, 3), "values": Z(2, 4, 5), "v": Z(3), "lengths": lengths},
            error,
            words,
        )
        for lengths, error, words in [
            (Z(2), TypeError, "additive_attention: lengths must be an int64 or int32 tensor, got float32"),
            ([1, 2], TypeError, "additive_attention: lengths must be an int64 or int32 tensor, got list"),
            (torch.tensor([1]), ValueError, "additive_attention: lengths must have shape (B,) with B = 2, got (1,)"),
            (torch.tensor([1, 5]), ValueError, "additive_attention: lengths must lie in 1..4, got 1..5"),
            (torch.tensor([0, 4]), ValueError, "additive_attention: lengths must lie in 1..4, got 0..4"),
            (
                torch.tensor([1, 2], device="meta"),
                ValueError,
                "additive_attention: lengths is on meta and the other arguments on cpu; move one of them",
            ),
        ]
    ),
    (
        "additive_attention",
        {"query": Z(2, 3), "keys": Z(2, 0, 3), "values": Z(2, 0, 5), "v": Z(3)},
        ValueError,
        "additive_attention: keys must hold at least one item, got L = 0",
    ),
    # rollouts
    (
        "draw_rollout",
        rollout(colour="red"),
        TypeError,
        "draw_rollout: no option 'colour'; there are prior_activation, first_prior, ",
    ),
    (
        "draw_rollout",
        rollout(prior_activation="relu"),
        ValueError,
        "draw_rollout: prior_activation must be 'linear' or 'tanh', got 'relu'",
    ),
    (
        "draw_rollout",
        rollout(first_prior="none"),
        ValueError,
        "draw_rollout: first_prior must be 'learned' or 'standard', got 'none'",
    ),
    (
        "draw_rollout",
        rollout(stride="both"),
        ValueError,
        "draw_rollout: stride must be 'max' or 'per_axis', got 'both'",
    ),
    ("draw_rollout", rollout(n_read=0), ValueError, "draw_rollout: n must be an integer of at least 1, got 0"),
    (
        "draw_rollout",
        rollout(noise=Z(0, 2, 2)),
        ValueError,
        "draw_rollout: noise must hold at least one step, got T = 0",
    ),
    (
        "draw_rollout",
        rollout(labels=Z(2, 0, 2)),
        ValueError,
        "draw_rollout: labels must hold at least one item, got L = 0",
    ),
    (
        "draw_rollout",
        rollout(labels=None, lengths=torch.tensor([1, 2])),
        ValueError,
        "draw_rollout: lengths count the items of labels, and labels is None; leave both out",
    ),
    ("draw_rollout", rollout(steps=torch.tensor([1, 3])), ValueError, "draw_rollout: steps must lie in 0..2, got 1..3"),
    (
        "draw_rollout",
        rollout(lengths=torch.tensor([0, 3])),
        ValueError,
        "draw_rollout: lengths must lie in 1..2, got 0..3",
    ),
    (
        "draw_rollout",
        weights(align_v=None),
        ValueError,
        "draw_rollout: weights.align_v is None, but the call has labels",
    ),
    (
        "draw_rollout",
        weights(read_window=None),
        ValueError,
        "draw_rollout: weights.read_window is None, but the call has a read glimpse (n_read)",
    ),
    (
        "draw_rollout",
        weights(write_window_bias=None),
        ValueError,
        "draw_rollout: weights.write_window_bias is None, but the call has a written patch (n_write)",
    ),
    (
        "draw_rollout",
        weights(dec_ih=Z(8, 5)),
        ValueError,
        "draw_rollout: weights.dec_ih must have F = Z + D = 4, got (8, 5)",
    ),
    (
        "draw_rollout",
        rollout(n_write=2),
        ValueError,
        "draw_rollout: weights.patch must have P = C n_write^2, or C H W ",
    ),
    (
        "draw_rollout",
        rollout(n_read=3),
        ValueError,
        "draw_rollout: weights.enc_ih must have E = 2 C n_read^2 + U, or 2 C H W ",
    ),
    (
        "draw_rollout",
        weights(h0_dec=Z(3)),
        ValueError,
        "draw_rollout: weights.h0_dec must have shape (U,) with U = 2 (from ",
    ),
    (
        "draw_rollout",
        rollout(image=Z(3, 1, 3, 4)),
        ValueError,
        "draw_rollout: image must have shape (B, C, H, W) with B = 2 (from noise), got (3, 1, 3, 4)",
    ),
]


@pytest.mark.parametrize(
    ("op", "arguments", "error", "words"), ERRORS, ids=[f"{op}-{words[len(op) + 2 :]}" for op, _, _, words in ERRORS]
)
def test_error(op: str, arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as raised:
        getattr(ops, op)(**arguments)
    assert str(raised.value).startswith(words)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("own_choice")  # Triton's interpreter has no bfloat16
@pytest.mark.parametrize(
    ("canvas", "error", "words"),
    [
        (Z(2, 1, 6, 5), ValueError, "canvas must have shape"),
        (Z(1, 1, 5, 6), ValueError, "canvas must have shape"),
        (Z(2, 1, 5, 6).int(), TypeError, "canvas is int32 and patch is bfloat16"),
        (Z(2, 1, 5, 6).double(), TypeError, "canvas is float64 and patch is bfloat16"),
    ],
    ids=["size", "batch", "int32", "float64"],
)
def test_autocast_keeps_no_canvas_that_does_not_fit(canvas: torch.Tensor, error: type[Exception], words: str) -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(error, match=f"^glimpse_write: {words}"):
        ops.glimpse_write(Z(2, 1, 3, 3), Z(2, 5), (5, 6), canvas=canvas)


@pytest.mark.parametrize("missing", ["weights.prior", "weights.canvas0"])
def test_a_weight_that_every_model_has_is_missed_by_name(missing: str) -> None:
    arguments = weights(**{missing.removeprefix("weights."): None})
    with pytest.raises(ValueError, match=f"^draw_rollout: {missing} is None, but every model has it$"):
        ops.draw_rollout(**arguments)


@pytest.mark.parametrize("op", SMALL)
def test_every_op_names_itself_when_an_argument_is_no_tensor(op: str) -> None:
    arguments = SMALL[op].inputs()
    name = next(name for name in arguments if isinstance(arguments[name], torch.Tensor))
    with pytest.raises(TypeError, match=f"^{op}: {name} must be a tensor, got ndarray$"):
        getattr(ops, op)(**{**arguments, name: arguments[name].numpy()})
