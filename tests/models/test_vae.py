"""VAEs: shapes of any image, the terms of their loss, p(x | z) and its draws, codes, refiners, and what is refused."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from fastdraw.models import Vae, VaeConfig, build_model

GAUSSIAN = {"likelihood": "gaussian"}
CONV: dict[str, Any] = {"network": "conv", "widths": (3, 4, 5)}


def tiny(**changes: Any) -> Vae:
    settings: dict[str, Any] = {"latent": 3, "hidden": (7, 6), "height": 5, "width": 4, "channels": 2}
    return Vae(VaeConfig(**(settings | changes)))


def images(model: Vae, count: int = 6) -> Tensor:
    config = model.config
    return torch.rand(count, config.channels, config.height, config.width)


def test_defaults_are_those_of_paper_001() -> None:
    shapes = [tuple(weight.shape) for weight in Vae(VaeConfig()).parameters() if weight.dim() == 2]
    assert shapes == [(256, 784), (256, 256), (128, 256), (256, 64), (256, 256), (784, 256)]
    assert isinstance(build_model(VaeConfig(latent=1)), Vae)


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 28, "width": 28, "channels": 1},
        {"height": 5, "width": 1, "channels": 3},
        {"height": 28, "width": 28, "channels": 1, **CONV},
        {"height": 29, "width": 31, "channels": 3, **CONV},
        {"height": 128, "width": 128, "channels": 3, **CONV, "widths": (2, 3, 4, 5), "convs": 2},
        {"height": 1, "width": 7, "channels": 1, **CONV, "convs": 3},
        {"height": 11, "width": 6, **CONV, **GAUSSIAN, "refiners": 2, "blocks": 1, "refiner_width": 3},
    ],
    ids=lambda changes: "-".join(f"{changes.get(key, '')}" for key in ("height", "width", "network", "refiners")),
)
def test_images_of_any_size_come_back_in_it(changes: dict[str, Any]) -> None:
    model = tiny(**changes)
    image = images(model, 2)
    output = model(image, None, None, model.noise(2))
    assert output.canvas.shape == image.shape
    assert [stage.shape for stage in output.stages] == [image.shape] * (1 + model.config.refiners)
    assert (output.nll.shape, output.kl.shape) == ((2,), (1, 2))
    assert model.sample(None, None, model.noise(2)).shape == image.shape
    (output.nll.sum() + output.kl.sum()).backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_every_pixel_is_seen_and_drawn(network: str) -> None:
    """Sizes that halving rounds up leave out no row or column."""
    model = tiny(**CONV | {"network": network}, height=7, width=10, **GAUSSIAN)
    image = images(model, 1).requires_grad_()
    mu, log_sigma = model.posterior(image)
    (slope,) = torch.autograd.grad(mu.sum() + log_sigma.sum(), image)
    assert slope.abs().gt(0).all()
    canvases = model.sample(None, None, model.noise(8))
    assert canvases.var(0).gt(0).all()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_the_terms_are_those_of_torch(likelihood: str) -> None:
    """Paper 002, eq. 6 with one sample: -log p(x | z) and KL, each summed over all but the batch."""
    model = tiny(likelihood=likelihood, **({"sigma": 0.3} if likelihood == "gaussian" else {})).double()
    image, noise = images(model).double(), model.noise(6)
    output = model(image, None, None, noise)
    mu, log_sigma = model.posterior(image)
    variance = (2 * log_sigma).exp()
    torch.testing.assert_close(output.kl[0], (-variance.log() - 1 + variance + mu**2).sum(1) / 2)
    standard = Normal(torch.zeros_like(mu), torch.ones_like(mu))
    torch.testing.assert_close(output.kl[0], kl_divergence(Normal(mu, log_sigma.exp()), standard).sum(1))
    (canvas,) = model.decode(mu + log_sigma.exp() * noise[0])
    torch.testing.assert_close(output.canvas, canvas)
    if likelihood == "bernoulli":
        log_p = torch.nn.functional.binary_cross_entropy_with_logits(canvas, image, reduction="none").neg()
        binary = image.round()
        torch.testing.assert_close(
            -model.negative_log_likelihood(canvas, binary), Bernoulli(logits=canvas).log_prob(binary).flatten(1).sum(1)
        )
    else:
        log_p = Normal(canvas, 0.3).log_prob(image)
    torch.testing.assert_close(-output.nll, log_p.flatten(1).sum(1))


@pytest.mark.parametrize("changes", [{}, CONV, GAUSSIAN])
def test_the_mean_of_the_sampled_kl_is_the_kl(changes: dict[str, Any]) -> None:
    model, count = tiny(**changes), 20_000
    with torch.no_grad():
        image = images(model, 1).expand(count, -1, -1, -1)
        noise = model.noise(count)
        sampled = model(image, None, None, noise, sampled_kl=True).kl[0]
        exact = model(image[:1], None, None, noise[:, :1]).kl[0, 0]
    assert sampled.std() > 0
    assert abs(sampled.mean() - exact) < 4 * sampled.std() / count**0.5
    mu, log_sigma = (row[0] for row in model.posterior(image[:1]))
    z = mu + log_sigma.exp() * noise[0]
    ratio = (Normal(mu, log_sigma.exp()).log_prob(z) - Normal(0, 1).log_prob(z)).sum(1)
    torch.testing.assert_close(sampled, ratio, atol=1e-4, rtol=1e-4)


def test_the_constant_of_the_gaussian_is_kept() -> None:
    """Paper 004, section 6.5, where it may not be ignored once sigma is learned."""
    model, dimensions = tiny(**GAUSSIAN, sigma=0.2), 2 * 5 * 4
    image = images(model)
    nll = model.negative_log_likelihood(image, image)
    torch.testing.assert_close(nll, torch.full((6,), dimensions / 2 * math.log(2 * math.pi * 0.2**2)))


def test_a_fixed_sigma_is_no_weight_and_stays() -> None:
    model = tiny(**GAUSSIAN, sigma=0.2)
    assert "log_sigma" not in dict(model.named_parameters())
    assert "log_sigma" not in model.state_dict()
    assert tiny(**GAUSSIAN, sigma=0.5, learned_sigma=True).state_dict()["log_sigma"].item() == pytest.approx(
        -math.log(2)
    )


def mean_square_error(model: Vae, image: Tensor, noise: Tensor) -> Tensor:
    return (model(image, None, None, noise).canvas - image).square().mean()


def test_a_learned_sigma_becomes_the_root_of_the_mean_square_error() -> None:
    """Where all else stands still; what is printed, without the constant, would let it grow without end."""
    model = tiny(**GAUSSIAN, learned_sigma=True).double()
    image, noise = images(model).double(), model.noise(6)
    optimiser = torch.optim.LBFGS(
        [model.log_sigma], max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = model(image, None, None, noise).nll.mean()
        loss.backward(inputs=[model.log_sigma])
        return loss

    optimiser.step(closure)
    expected = mean_square_error(model, image, noise).detach()
    torch.testing.assert_close((2 * model.log_sigma).exp().detach(), expected, rtol=1e-6, atol=0)
    printed = (model.decode(noise[0])[-1] - image).square().sum().detach() / (2 * (2 * model.log_sigma).exp())
    assert torch.autograd.grad(printed, model.log_sigma)[0] < -1


def test_training_with_a_learned_sigma_fits_and_lowers_sigma() -> None:
    model = tiny(**GAUSSIAN, learned_sigma=True, hidden=(32,))
    image = images(model, 8)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        output = model(image, None, None, model.noise(8))
        loss = (output.nll + output.kl[0]).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 10
    sigma = model.log_sigma.exp().item()
    assert sigma == pytest.approx(mean_square_error(model, image, model.noise(8)).sqrt().item(), rel=0.2)
    assert sigma < 0.5


def test_gaussian_draws_are_of_the_mean_and_sigma() -> None:
    """x^ = f(z) + sigma eps (paper 004, section 6.5)."""
    model, count = tiny(**GAUSSIAN, sigma=0.3), 20_000
    canvas = model.sample(None, None, model.noise(1))
    drawn = model.observe(canvas.expand(count, -1, -1, -1))
    error = 0.3 / count**0.5
    assert (drawn.mean(0) - canvas[0]).abs().max() < 5 * error
    assert (drawn.std(0) - 0.3).abs().max() < 5 * error / 2**0.5
    assert (
        abs((drawn[:, 0, 0, 0] - canvas[0, 0, 0, 0]) @ (drawn[:, 0, 0, 1] - canvas[0, 0, 0, 1])) < 5 * 0.09 * count**0.5
    )
    entropy = model.negative_log_likelihood(canvas.expand(count, -1, -1, -1), drawn).mean()
    assert entropy.item() == pytest.approx(40 * (math.log(0.3) + math.log(2 * math.pi * math.e) / 2), abs=0.2)


def test_bernoulli_draws_are_bits_of_their_probability() -> None:
    model, count = tiny(), 20_000
    canvas = 3 * torch.randn(1, 2, 5, 4)
    drawn = model.observe(canvas.expand(count, -1, -1, -1))
    assert set(drawn.unique().tolist()) == {0, 1}
    probability = model.expected(canvas[0])
    error = (probability * (1 - probability) / count).sqrt()
    assert ((drawn.mean(0) - probability).abs() < 5 * error).all()
    ends = torch.tensor([-math.inf, math.inf]).expand(50, 2)
    assert torch.equal(model.observe(ends), torch.tensor([0.0, 1.0]).expand(50, 2))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_draws_are_the_generators(likelihood: str) -> None:
    model = tiny(likelihood=likelihood)
    canvas = model.sample(None, None, model.noise(6))
    first, again, other = (model.observe(canvas, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_learned_sigma_is_what_is_drawn_with() -> None:
    model = tiny(**GAUSSIAN, learned_sigma=True)
    with torch.no_grad():
        model.log_sigma.fill_(math.log(1e-3))
    canvas = model.sample(None, None, model.noise(6))
    drawn = model.observe(canvas)
    assert 0 < (drawn - canvas).abs().max() < 1e-2
    assert not drawn.requires_grad


@pytest.mark.parametrize(
    "changes", [{}, CONV, GAUSSIAN, {**CONV, **GAUSSIAN, "refiners": 2, "blocks": 1, "refiner_width": 4}]
)
def test_the_code_of_an_image_draws_its_reconstruction(changes: dict[str, Any]) -> None:
    model = tiny(**changes).eval()
    image = images(model)
    code = model.embed(image)
    assert code.shape == (1, 6, 3)
    without_noise = model(image, None, None, torch.zeros(1, 6, 3))
    assert torch.equal(model.sample(None, None, code), without_noise.canvas)
    assert torch.equal(code[0], model.posterior(image)[0])


def test_noise_is_standard_normal_and_the_generators() -> None:
    model = tiny()
    first, again = (model.noise(4000, 3, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (1, 4000, 3)
    torch.testing.assert_close((first.mean(), first.std()), (torch.tensor(0.0), torch.tensor(1.0)), atol=0.04, rtol=0)


def test_no_image_of_a_batch_meets_another() -> None:
    model = tiny(**CONV)
    image, noise = images(model), model.noise(6)
    output = model(image, None, None, noise)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = model(image[order], None, None, noise[:, order])
    torch.testing.assert_close((shuffled.nll, shuffled.kl[0]), (output.nll[order], output.kl[0, order]))


def test_expected_images_lie_between_0_and_1() -> None:
    canvas = torch.tensor([-5.0, 0.25, 5.0])
    assert tiny(**GAUSSIAN).expected(canvas).tolist() == [0, 0.25, 1]
    torch.testing.assert_close(tiny().expected(canvas), canvas.sigmoid())


def test_stages_refine_one_another() -> None:
    model = tiny(**GAUSSIAN, refiners=3, blocks=2, refiner_width=4).eval()
    z = torch.randn(6, 3)
    stages = model.decode(z)
    assert len(stages) == 4
    assert torch.equal(stages[0], model.decoder(z))
    for refiner, coarse, fine in zip(model.refiners, stages, stages[1:], strict=False):
        assert torch.equal(fine, refiner(coarse))
        assert not torch.equal(fine, coarse)
    assert torch.equal(model.sample(None, None, z[None]), stages[-1])


@pytest.mark.parametrize(("of", "place"), [("first", 0), ("last", -1)])
def test_the_likelihood_is_of_the_stage_asked_for(of: str, place: int) -> None:
    model = tiny(**GAUSSIAN, refiners=2, blocks=1, refiner_width=4, likelihood_of=of).eval()
    image, noise = images(model), model.noise(6)
    output = model(image, None, None, noise)
    torch.testing.assert_close(output.nll, model.negative_log_likelihood(output.stages[place], image))
    assert torch.equal(output.canvas, output.stages[-1])
    other = model.negative_log_likelihood(output.stages[-1 - place], image)
    assert not torch.allclose(output.nll, other)


@pytest.mark.parametrize("shape", [(6, 2, 5, 5), (6, 1, 5, 4), (2, 5, 4), (6, 40)])
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_an_image_of_another_shape_is_named(network: str, shape: tuple[int, ...]) -> None:
    model = tiny(**CONV | {"network": network})
    words = rf"^image must have shape \(B, 2, 5, 4\), got \({', '.join(map(str, shape))}\)"
    for call in (lambda image: model(image, None, None, model.noise(6)), model.embed, model.posterior):
        with pytest.raises(ValueError, match=words):
            call(torch.rand(shape))


def test_a_code_of_another_shape_is_named() -> None:
    for z in (torch.zeros(6, 4), torch.zeros(3), torch.zeros(1, 6, 3)):
        with pytest.raises(ValueError, match=rf"^z must have shape \(B, 3\), got \({', '.join(map(str, z.shape))}"):
            tiny().decode(z)
    with pytest.raises(ValueError, match=r"^z must have shape \(B, 3\), got \(6, 2\)"):
        tiny().sample(None, None, torch.zeros(1, 6, 2))


def test_noise_of_another_shape_is_named() -> None:
    model = tiny()
    with pytest.raises(ValueError, match=r"noise must have shape \(B, Z\) with B = 6 .*, got \(5, 3\)"):
        model(images(model), None, None, model.noise(5))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden": (256, 0)}, r"model.hidden must be sizes from 1 to 1000000, got \(256, 0\)"),
        ({"widths": (-1,)}, r"model.widths must be sizes from 1 to 1000000, got \(-1,\)"),
        ({"hidden": ()}, "at least 1 item"),
        ({"learned_sigma": True}, "model.learned_sigma needs model.likelihood gaussian"),
        ({"refiners": 1}, "model.refiners need model.likelihood gaussian"),
        (
            {"refiners": 1, "likelihood": "gaussian", "height": 1, "width": 1},
            "model.refiners need images of more than one pixel",
        ),
        ({"sigma": 0}, "greater than 0"),
        ({"sigma": math.nan}, "less than 1000000"),
        ({"latent": 0}, "greater than or equal to 1"),
        ({"convs": 0}, "greater than or equal to 1"),
        ({"network": "transformer"}, "'mlp' or 'conv'"),
        ({"likelihood": "laplace"}, "'bernoulli' or 'gaussian'"),
        ({"likelihood_of": "middle"}, "'first' or 'last'"),
        ({"depth": 3}, "Extra inputs are not permitted"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        VaeConfig(**changes)
