"""The recurrence, held against a plain loop written from its equations, and what its options and outputs mean."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils._python_dispatch import TorchDispatchMode

import fastdraw
from fastdraw import ops, reference
from fastdraw.ops import persistent
from fastdraw.ops.persistent import Limits

from .cases import Draw, Inputs, Run, every_run, parameter, runs
from .checking import assert_accurate, float_tensors, max_error, to_float64
from .checking import run as run_with_gradients

ROLLOUT, GENERATE = every_run("draw_rollout"), every_run("draw_generate")
BOTH = every_run("draw_rollout", "draw_generate")
MODELS = {
    "attention": Draw(B=3, C=2, H=5, W=7, T=4, L=3, D=4, A=5, U=6, Z=3),
    "no_labels": Draw(B=3, H=5, W=7, T=3, L=None, U=6, Z=3),
    "no_read": Draw(B=3, H=5, W=7, T=3, L=3, n_read=None),
    "no_write": Draw(B=3, H=5, W=7, T=3, L=3, n_write=None),
    "no_windows": Draw(B=3, C=2, H=5, W=7, T=3, L=3, n_read=None, n_write=None),
}
OPTIONS = [
    {},
    {"prior_activation": "tanh"},
    {"first_prior": "standard"},
    {"log_variance": True},
    {"stride": "per_axis", "eps": 1e-3},
    {"prior_activation": "tanh", "first_prior": "standard", "log_variance": True},
]


def inputs(run: Run, seed: str = "rollout") -> Inputs:
    return Inputs(seed, torch.float64, run.device)


def arguments(run: Run, draw: Draw = MODELS["attention"], **options: Any) -> dict[str, Any]:
    return getattr(draw, run.op.removeprefix("draw_"))(inputs(run), **options)


def filters(window: Tensor, n: int, size: tuple[int, int], stride: str, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """fy (n, H), fx (n, W) and gamma of one sample's window."""
    gx, gy, log_sigma2, log_delta, log_gamma = window
    banks = []
    for g, length in ((gy, size[0]), (gx, size[1])):
        extent = length if stride == "per_axis" else max(size)
        spacing = (extent - 1) / (n - 1) * log_delta.exp() if n > 1 else 0.0
        rows = []
        for i in range(n):
            mu = (length + 1) / 2 * (g + 1) - 1 + (i - (n - 1) / 2) * spacing
            e = torch.exp(-((torch.arange(length, device=window.device) - mu) ** 2) / (2 * log_sigma2.exp()))
            rows.append(e / (e.sum() + eps))
        banks.append(torch.stack(rows))
    return banks[0], banks[1], log_gamma.exp()


def lstm(x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (w_ih @ x + w_hh @ h + b).chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def one_sample(
    w: ops.DrawWeights,
    image: Tensor | None,
    labels: Tensor | None,
    length: int,
    noise: Tensor,
    steps: int,
    n_read: int | None,
    n_write: int | None,
    prior_activation: str = "linear",
    first_prior: str = "learned",
    log_variance: bool = False,
    stride: str = "max",
    eps: float = 1e-8,
) -> dict[str, list[Tensor]]:
    """The equations, one sample and one step at a time, with what each step made; without an image, it generates."""
    h_enc, h_dec, canvas = w.h0_enc, w.h0_dec, w.canvas0
    c_enc, c_dec = torch.zeros_like(h_enc), torch.zeros_like(h_dec)
    made: dict[str, list[Tensor]] = {"kl": [], "canvas": [], "attention": [], "read_window": [], "write_window": []}
    size = canvas.shape[-2:]
    for t in range(steps):
        y = noise.new_zeros(0)
        if labels is not None:
            query = w.align_query @ h_dec + w.align_bias
            e = torch.stack([w.align_v @ torch.tanh(query + w.align_key @ labels[i]) for i in range(length)])
            alpha = torch.softmax(e, 0)
            y = sum(alpha[i] * labels[i] for i in range(length))
            made["attention"].append(alpha)
        prior = w.prior @ h_dec + w.prior_bias
        prior = prior.tanh() if prior_activation == "tanh" else prior
        prior = torch.zeros_like(prior) if first_prior == "standard" and t == 0 else prior
        mu_p, s_p = prior.chunk(2)
        s_p = s_p / 2 if log_variance else s_p
        if image is None:
            z = mu_p + s_p.exp() * noise[t]
        else:
            error = image - canvas.sigmoid()
            r = torch.cat([image.flatten(), error.flatten()])
            if n_read is not None:
                made["read_window"].append(w.read_window @ h_dec + w.read_window_bias)
                fy, fx, gamma = filters(made["read_window"][-1], n_read, size, stride, eps)
                r = torch.cat([(gamma * (fy @ picture @ fx.T)).flatten() for picture in (image, error)])
            h_enc, c_enc = lstm(torch.cat([r, h_dec]), h_enc, c_enc, w.enc_ih, w.enc_hh, w.enc_bias)
            mu_q, s_q = (w.posterior @ h_enc + w.posterior_bias).chunk(2)
            s_q = s_q / 2 if log_variance else s_q
            z = mu_q + s_q.exp() * noise[t]
            variance_p, variance_q = (2 * s_p).exp(), (2 * s_q).exp()
            ratio = variance_q / variance_p
            made["kl"].append(0.5 * ((mu_q - mu_p) ** 2 / variance_p + ratio - ratio.log() - 1).sum())
        h_dec, c_dec = lstm(torch.cat([z, y]), h_dec, c_dec, w.dec_ih, w.dec_hh, w.dec_bias)
        patch = w.patch @ h_dec + w.patch_bias
        if n_write is None:
            canvas = canvas + patch.view_as(canvas)
        else:
            made["write_window"].append(w.write_window @ h_dec + w.write_window_bias)
            fy, fx, gamma = filters(made["write_window"][-1], n_write, size, stride, eps)
            canvas = canvas + fy.T @ patch.view(-1, n_write, n_write) @ fx / gamma
        made["canvas"].append(canvas)
    return made


def loop(run: Run, given: dict[str, Any], **options: Any) -> list[dict[str, list[Tensor]]]:
    """`one_sample` for every sample of the arguments of a call."""
    T, B, _ = given["noise"].shape
    return [
        one_sample(
            given["weights"],
            given["image"][b] if "image" in given else None,
            None if given["labels"] is None else given["labels"][b],
            0
            if given["labels"] is None
            else given["labels"].shape[1]
            if given["lengths"] is None
            else given["lengths"][b],
            given["noise"][:, b],
            T if given.get("steps") is None else int(given["steps"][b]),
            given.get("n_read"),
            given["n_write"],
            **options,
        )
        for b in range(B)
    ]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())) or "plain")
@pytest.mark.parametrize("model", MODELS)
@ROLLOUT
def test_rollout_equals_the_equations(run: Run, model: str, options: dict[str, Any]) -> None:
    given = arguments(run, MODELS[model])
    leaves = {name: x.requires_grad_() for name, x in float_tensors(given).items()}
    output, trace = run(**given, **options, trace=True)
    samples = loop(run, given, **options)

    canvas = torch.stack([sample["canvas"][-1] for sample in samples])
    kl = torch.stack([torch.stack(sample["kl"]) for sample in samples], dim=1)
    nll = binary_cross_entropy_with_logits(canvas, given["image"], reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(output.canvas, canvas)
    torch.testing.assert_close(output.kl, kl)
    torch.testing.assert_close(output.nll, nll)
    for name in ("attention", "read_window", "write_window", "canvas"):
        if samples[0][name]:
            expected = torch.stack([torch.stack(sample[name]) for sample in samples], dim=1)
            torch.testing.assert_close(getattr(trace, name), expected)
        else:
            assert getattr(trace, name) is None

    expected = torch.autograd.grad((nll + kl.sum(0)).sum(), leaves.values(), retain_graph=True, allow_unused=True)
    actual = torch.autograd.grad((output.nll + output.kl.sum(0)).sum(), leaves.values(), allow_unused=True)
    for name, x, y in zip(leaves, actual, expected, strict=True):
        torch.testing.assert_close(x, y, msg=lambda text, name=name: f"{name}: {text}")
        assert y.any(), name


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())) or "plain")
@pytest.mark.parametrize("model", ["attention", "no_labels", "no_write"])
@GENERATE
def test_generating_equals_the_equations(run: Run, model: str, options: dict[str, Any]) -> None:
    given = arguments(run, MODELS[model])
    frames, trace = run(**given, **options, frames=True, trace=True)
    samples = loop(run, given, **options)
    expected = torch.stack([torch.stack(sample["canvas"]) for sample in samples], dim=1)
    torch.testing.assert_close(frames, expected)
    torch.testing.assert_close(run(**given, **options), expected[-1])
    assert torch.equal(trace.canvas, frames)
    assert trace.read_window is None
    assert (trace.attention is None) == (model == "no_labels")


@ROLLOUT
def test_mixed_lengths_equal_single_runs(run: Run) -> None:
    """A batch that mixes lengths L and steps k L, against each sample alone at its own L and T."""
    k, lengths = 2, (1, 3, 2)
    draw = MODELS["attention"]._replace(T=k * 3)
    given = arguments(run, draw, lengths=lengths, steps=tuple(k * length for length in lengths))
    output, trace = run(**given, trace=True)
    for b, length in enumerate(lengths):
        T = k * length
        alone = {
            **given,
            "image": given["image"][b : b + 1],
            "labels": given["labels"][b : b + 1, :length],
            "noise": given["noise"][:T, b : b + 1],
            "lengths": None,
            "steps": None,
        }
        single = run(**alone)
        torch.testing.assert_close(output.nll[b : b + 1], single.nll)
        torch.testing.assert_close(output.kl[:T, b : b + 1], single.kl)
        torch.testing.assert_close(output.canvas[b : b + 1], single.canvas)
        assert not output.kl[T:, b].any()
        assert (trace.canvas[T - 1 :, b] == trace.canvas[T - 1, b]).all()
        assert not trace.attention[:, b, length:].any()


@ROLLOUT
def test_no_steps_leave_the_first_canvas(run: Run) -> None:
    given = arguments(run, steps=(0, 4, 0))
    output = run(**given)
    assert torch.equal(output.canvas[0], given["weights"].canvas0)
    assert not output.kl[:, [0, 2]].any()
    assert output.kl[:, 1].all()


@ROLLOUT
def test_steps_that_are_not_taken_have_no_gradient(run: Run) -> None:
    given = arguments(run, steps=(1, 4, 2))
    noise = given["noise"].requires_grad_()
    output = run(**given)
    (gradient,) = torch.autograd.grad((output.nll + output.kl.sum(0)).sum(), noise)
    for b, steps in enumerate((1, 4, 2)):
        assert gradient[:steps, b].any(1).all()
        assert not gradient[steps:, b].any()


@BOTH
def test_every_step_has_noise_of_its_own(run: Run) -> None:
    given = arguments(run)
    options = {"trace": True}
    _, before = run(**given, **options)
    for t in range(4):
        noise = given["noise"].clone()
        noise[t] += 1
        _, after = run(**{**given, "noise": noise}, **options)
        changed = (after.canvas != before.canvas).flatten(1).any(1)
        assert changed.tolist() == [step >= t for step in range(4)]


@BOTH
def test_the_labels_change_the_drawing(run: Run) -> None:
    given = arguments(run)
    drawn, other = (
        _canvas(run(**{**given, "labels": labels})) for labels in (given["labels"], given["labels"].flip(1) + 1)
    )
    assert (drawn != other).flatten(1).any(1).all()


@BOTH
def test_labels_beyond_the_length_do_not(run: Run) -> None:
    given = arguments(run, lengths=(1, 2, 1))
    labels = given["labels"].clone()
    labels[:, 2] = 9.0
    assert torch.equal(_canvas(run(**given)), _canvas(run(**{**given, "labels": labels})))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())) or "plain")
@ROLLOUT
def test_a_sampled_kl_changes_the_kl_alone(run: Run, options: dict[str, Any]) -> None:
    given = arguments(run, steps=(1, 4, 2))
    plain, sampled = run(**given, **options), run(**given, **options, sampled_kl=True)
    torch.testing.assert_close((sampled.nll, sampled.canvas), (plain.nll, plain.canvas))
    for b, steps in enumerate((1, 4, 2)):
        assert not sampled.kl[steps:, b].any()


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, options.values())) or "plain")
@pytest.mark.parametrize("run", [run for run in runs("draw_rollout") if run.backend != "triton"], ids=str)
def test_a_sampled_kl_has_the_kl_as_its_mean(run: Run, options: dict[str, Any]) -> None:
    """Not on Triton, whose interpreter takes a second for every few of the samples."""
    given = {**arguments(run), "lengths": None, "steps": None}
    # A step's KL depends on the steps before: many noises for the last step of the second sample alone.
    count = 20_000
    many = {name: x[1:2].expand(count, *x.shape[1:]) for name, x in given.items() if name in ("image", "labels")}
    noise = given["noise"][:, 1:2].repeat(1, count, 1)
    noise[3] = torch.randn(noise.shape[1:], dtype=noise.dtype, device=noise.device)
    ratio = run(**{**given, **many, "noise": noise}, **options, sampled_kl=True).kl[3]
    expected = run(**given, **options).kl[3, 1]
    assert abs(ratio.mean() - expected) < 4 * ratio.std() / count**0.5


@BOTH
def test_trace_is_of_the_same_run(run: Run) -> None:
    given = arguments(run, lengths=(1, 2, 3))
    plain, (traced, trace) = run(**given), run(**given, trace=True)
    torch.testing.assert_close(_canvas(plain), _canvas(traced))
    assert torch.equal(trace.canvas[-1], _canvas(traced))
    torch.testing.assert_close(trace.attention.sum(2), torch.ones_like(trace.attention[..., 0]))


@pytest.mark.parametrize("trace", [False, True])
@every_run("draw_rollout", "draw_generate", kernels=False)
def test_only_a_trace_keeps_the_canvases_of_earlier_steps(
    run: Run, trace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = fastdraw.ops.rollout._STEP
    written, alive = [], []

    def glimpse_write(*arguments: Any, **options: Any) -> Tensor:
        alive.append(sum(canvas() is not None for canvas in written))
        canvas = step.glimpse_write(*arguments, **options)
        written.append(weakref.ref(canvas))
        return canvas

    monkeypatch.setattr(fastdraw.ops.rollout, "_STEP", step._replace(glimpse_write=glimpse_write))
    with torch.no_grad():
        run(**arguments(run), trace=trace)
    assert alive == ([0, 1, 2, 3] if trace else [0, 1, 1, 1])


# Odd and even sums of bfloat16, rows of every tile, and columns that end before, on and behind a panel.
IN_BFLOAT16 = [
    *(Draw(B=B, H=5, W=7, T=3, L=2, D=2 + B % 2, A=14 + B, U=14 + B % 4, Z=7 + B % 3) for B in range(1, 9)),
    MODELS["no_labels"],
    MODELS["no_windows"],
]


def with_gradients(run: Run, given: dict[str, Any], weights: ops.DrawWeights) -> list[Tensor]:
    """The outputs, the gradients of all weights, and those of the gradient of the noise."""
    leaves = {name: x.detach().requires_grad_() for name, x in weights._asdict().items() if x is not None}
    noise = given["noise"].detach().requires_grad_()
    output = run(**{**given, "noise": noise, "weights": weights._replace(**leaves)})
    outputs = [output] if isinstance(output, Tensor) else list(output)
    loss = sum(y.sin().sum() for y in outputs)
    options = {"allow_unused": True, "materialize_grads": True}
    gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, **options)
    (dnoise,) = torch.autograd.grad(loss, noise, create_graph=True)
    return [*outputs, *gradients, *torch.autograd.grad(dnoise.square().sum(), list(leaves.values()), **options)]


@pytest.mark.parametrize("draw", IN_BFLOAT16, ids=lambda draw: f"B{draw.B}-U{draw.U}-Z{draw.Z}-L{draw.L}")
@pytest.mark.parametrize(
    "run",
    [
        parameter(run, name=run.op)
        for op in ("draw_rollout", "draw_generate")
        for run in runs(op)
        if run.backend == "cpu"
    ],
)
def test_autocast_rounds_the_matrices_and_nothing_else(run: Run, draw: Draw) -> None:
    given = getattr(draw, run.op.removeprefix("draw_"))(Inputs("bfloat16", torch.float32, run.device))
    weights = given["weights"]
    rounded = [x.bfloat16().float() if x is not None and x.dim() == 2 else x for x in weights]
    expected = with_gradients(run, given, ops.DrawWeights(*rounded))
    with torch.autocast(run.device, torch.bfloat16):
        actual = with_gradients(run, given, weights)
    assert all(x.dtype == torch.float32 and torch.equal(x, y) for x, y in zip(actual, expected, strict=True))


@pytest.mark.parametrize("draw", IN_BFLOAT16, ids=lambda draw: f"B{draw.B}-U{draw.U}-Z{draw.Z}-L{draw.L}")
@every_run("draw_rollout", "draw_generate", reference=False)
def test_autocast_is_as_accurate_as_plain_pytorch(run: Run, draw: Draw) -> None:
    given = getattr(draw, run.op.removeprefix("draw_"))(Inputs("bfloat16", torch.float32, run.device))
    plain_function = getattr(reference, run.op)
    exact = run_with_gradients(plain_function, to_float64(given), rounded=torch.float32)
    with torch.autocast(run.device, torch.bfloat16):
        actual, plain = run_with_gradients(run, given), run_with_gradients(plain_function, given)
    for name, x in actual.items():
        assert x.dtype == torch.float32, name
        # As digits of bfloat16, which allows for the rounding of those.
        assert_accurate(name, x.bfloat16(), exact[name], max_error(plain[name], exact[name]), steps=4)


@every_run("draw_rollout", "draw_generate", reference=False)
def test_autocast_leaves_float64_alone(run: Run) -> None:
    given = arguments(run)
    expected = _canvas(run(**given))
    with torch.autocast(run.device, torch.bfloat16):
        assert torch.equal(_canvas(run(**given)), expected)


@pytest.mark.parametrize("differentiable", [False, True])
@every_run("draw_rollout", "draw_generate", reference=False)
def test_only_a_backward_pass_makes_kernels_save_their_steps(run: Run, differentiable: bool) -> None:
    given = arguments(run)
    given["noise"].requires_grad_(differentiable)
    with Outputs() as outputs:
        run(**given)
    *_results, saved = outputs.of[run.op]
    assert (saved.numel() > 0) == differentiable


class Outputs(TorchDispatchMode):
    """What every torch op returned last, by its name in any namespace."""

    def __init__(self) -> None:
        super().__init__()
        self.of: dict[str, Any] = {}

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.of[op._opname] = result = op(*args, **(kwargs or {}))
        return result


@pytest.mark.parametrize("first_prior", ["learned", "standard"])
@ROLLOUT
def test_the_first_prior_is_of_h0_or_standard(run: Run, first_prior: str) -> None:
    given = arguments(run)
    w = given["weights"]
    w = w._replace(posterior=torch.zeros_like(w.posterior))  # the posterior is its bias, whatever is read
    kl = run(**{**given, "weights": w}, first_prior=first_prior).kl
    prior = w.prior @ w.h0_dec + w.prior_bias
    mu_p, log_sigma_p = (prior if first_prior == "learned" else torch.zeros_like(prior)).expand(3, -1).chunk(2, 1)
    mu_q, log_sigma_q = w.posterior_bias.expand(3, -1).chunk(2, 1)
    torch.testing.assert_close(kl[0], reference.gaussian_kl(mu_q, log_sigma_q, mu_p, log_sigma_p))
    changed = run(**{**given, "weights": w._replace(prior_bias=w.prior_bias + 0.1)}, first_prior=first_prior).kl != kl
    assert changed.all(1).tolist() == [first_prior == "learned", True, True, True]


@ROLLOUT
def test_a_step_knows_the_labels_from_the_decoder_of_the_step_before(run: Run) -> None:
    """The y of a step enters its decoder: neither prior nor posterior of the same step know it."""
    given = arguments(run)
    before, after = (run(**{**given, "labels": labels}).kl for labels in (given["labels"], given["labels"] + 1))
    assert torch.equal(before[0], after[0])
    assert (before[1:] != after[1:]).all()


@every_run("draw_rollout", "draw_generate", kernels=False)
def test_the_keys_of_the_labels_are_made_once(run: Run) -> None:
    given = arguments(run)
    with Products(given["weights"].align_key) as products:
        run(**given)
    assert len(given["noise"]) == 4
    assert products.count == 1


class Products(TorchDispatchMode):
    """Counts the products with a matrix."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix, self.count = matrix.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if op._opname in ("mm", "addmm", "bmm", "linear"):
            tensors = [x for x in args if isinstance(x, Tensor)]
            self.count += any(x.untyped_storage().data_ptr() == self.matrix for x in tensors)
        return op(*args, **(kwargs or {}))


@BOTH
def test_permuting_the_batch_permutes_the_outputs(run: Run) -> None:
    given = arguments(run, lengths=(1, 2, 3), steps=(4, 1, 2))
    order = torch.tensor([2, 0, 1], device=run.device)
    moved = {name: x[order] if name in ("image", "labels", "lengths", "steps") else x for name, x in given.items()}
    moved["noise"] = given["noise"][:, order]
    torch.testing.assert_close(_canvas(run(**moved)), _canvas(run(**given))[order])


@BOTH
def test_repeating_the_batch_gives_several_samples(run: Run) -> None:
    """S samples per image: repeat every argument S times, with noise of its own for each."""
    S, given = 3, arguments(run, lengths=(1, 2, 3))
    B = given["noise"].shape[1]
    many = {
        name: x.repeat(S, *[1] * (x.dim() - 1)) if name in ("image", "labels", "lengths") else x
        for name, x in given.items()
    }
    many["noise"] = torch.randn(4, S * B, 3, dtype=torch.float64, device=run.device)
    drawn = _canvas(run(**many)).unflatten(0, (S, B))
    for s in range(S):
        single = _canvas(run(**{**given, "noise": many["noise"][:, s * B : (s + 1) * B]}))
        torch.testing.assert_close(drawn[s], single)
    assert not torch.equal(drawn[0], drawn[1])


@GENERATE
def test_generating_needs_no_encoder(run: Run) -> None:
    given = arguments(run)
    changed = {
        name: x + 1
        for name, x in given["weights"]._asdict().items()
        if name.startswith(("enc", "post", "h0_enc", "read"))
    }
    assert torch.equal(run(**given), run(**{**given, "weights": given["weights"]._replace(**changed)}))


@ROLLOUT
def test_keyword_defaults_are_the_papers(run: Run) -> None:
    given = arguments(run)
    explicit = {
        "prior_activation": "linear",
        "first_prior": "learned",
        "log_variance": False,
        "stride": "max",
        "eps": 1e-8,
    }
    for x, y in zip(run(**given), run(**given, **explicit), strict=True):
        assert torch.equal(x, y)


def test_the_zero_weights_draw_nothing() -> None:
    """All weights 0: q = p, the canvas stays 0, and every pixel costs log 2."""
    given = Draw(L=None).rollout(Inputs("zero", torch.float32, "cpu"))
    zeros = ops.DrawWeights(*(None if w is None else torch.zeros_like(w) for w in given["weights"]))
    output = ops.draw_rollout(**{**given, "weights": zeros})
    assert not output.canvas.any()
    assert not output.kl.any()
    torch.testing.assert_close(output.nll, torch.full((2,), 12 * 0.6931471805599453))


@every_run("draw_rollout", reference=False)
def test_long_sums_are_as_exact_as_plain_pytorch_s(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the rule of all ops, but on the whole: of what one wide model makes, either may have the luck."""
    monkeypatch.setattr(persistent, "EMULATED", Limits(35, 227 << 10))
    ratios = []
    for seed in "abc":
        given = Draw(B=3, C=1, H=6, W=7, T=2, L=3, D=5, A=64, U=256, Z=20, n_read=3, n_write=4).rollout(
            Inputs(seed, torch.float32, run.device)
        )
        exact = run_with_gradients(reference.draw_rollout, to_float64(given), rounded=torch.float32)
        plain, ours = run_with_gradients(reference.draw_rollout, given), run_with_gradients(run, given)
        ratios += [(ours[name] - x).norm() / (plain[name] - x).norm() for name, x in exact.items()]
    assert torch.stack(ratios).log().mean().exp() < 2


def _canvas(output: Any) -> Tensor:
    return output.canvas if isinstance(output, ops.DrawOutput) else output
