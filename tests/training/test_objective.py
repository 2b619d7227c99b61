"""The loss: its terms, their weights, and which parts of a model each of them trains."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastdraw.data import Batch
from fastdraw.errors import FastdrawError
from fastdraw.models import Vae, build_model
from fastdraw.training import held_out_source
from fastdraw.training.objective import Objective
from fastdraw.training.settings import Settings
from tests.training.tiny import tiny, tiny_vae

BATCH = 8


class Cubes(nn.Module):
    """A refinement loss of a user's own, with a weight that it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return self.scale * (image - target).abs().pow(3).flatten(1).sum(1)


def made(settings: Settings, refinement: nn.Module | None = None) -> tuple[Objective, Batch, Tensor]:
    """A fresh objective, a batch and noise for it."""
    torch.manual_seed(0)
    objective = Objective(build_model(settings.model), settings, refinement)
    batch = held_out_source(settings, BATCH).batch(0)
    return objective, batch, objective.model.noise(*batch.labels.shape, torch.Generator().manual_seed(0))


def trained_by(term: Tensor, model: nn.Module) -> set[str]:
    """The parts of a VAE that a term has gradients for, all of whose weights then have some."""
    gradients = torch.autograd.grad(term, list(model.parameters()), retain_graph=True, allow_unused=True)
    found: dict[str, list[bool]] = {}
    for (name, _), gradient in zip(model.named_parameters(), gradients, strict=True):
        part = ".".join(name.split(".")[: 2 if name.startswith("refiners") else 1])
        found.setdefault(part, []).append(gradient is not None and bool(gradient.any()))
    assert all(all(some) or not any(some) for some in found.values())
    return {part for part, some in found.items() if all(some)}


@pytest.mark.parametrize(
    "settings",
    [
        tiny(beta=0.5),
        tiny_vae(beta=3, model__likelihood_of="last"),
        tiny_vae(beta=0, model__refiners=0),
        tiny_vae(beta=2, model__refiners=0, model__likelihood_of="last", model__likelihood="bernoulli"),
    ],
    ids=["draw", "residual", "no-refiner", "bernoulli"],
)
def test_loss_is_nll_and_beta_kl(settings: Settings) -> None:
    objective, batch, noise = made(settings)
    output = objective.model(*batch, noise)
    terms = objective(*batch, noise)
    assert objective.names == ["nll", "kl"]
    torch.testing.assert_close(terms, torch.stack([output.nll.mean(), output.kl.sum(0).mean()]))
    torch.testing.assert_close(objective.loss(terms), terms[0] + settings.beta * terms[1])
    named = objective.named(terms.tolist())
    assert named == {"loss": pytest.approx(objective.loss(terms).item()), "nll": terms[0].item(), "kl": terms[1].item()}


@pytest.mark.parametrize("refiners", [1, 2, 3])
def test_later_stages_are_refined_under_the_loss_of_the_settings(refiners: int) -> None:
    settings = tiny_vae(model__refiners=refiners, beta=2, refinement__weight=7)
    objective, batch, noise = made(settings)
    output = objective.model(*batch, noise)
    assert len(output.stages) == 1 + refiners
    assert output.canvas is output.stages[-1]
    terms = objective(*batch, noise)
    assert objective.names == ["nll", "kl", "refinement"]
    coarse, *fine = output.stages
    sigma = settings.model.sigma
    log_density = torch.distributions.Normal(coarse, sigma).log_prob(batch.image).sum((1, 2, 3))
    torch.testing.assert_close(terms[0], -log_density.mean())
    torch.testing.assert_close(terms[2], sum((stage - batch.image).abs().sum() / BATCH for stage in fine))
    torch.testing.assert_close(objective.loss(terms), terms[0] + 2 * terms[1] + 7 * terms[2])


def test_terms_train_the_parts_that_they_look_at() -> None:
    objective, batch, noise = made(tiny_vae())
    nll, kl, refinement = objective(*batch, noise)
    assert trained_by(kl, objective.model) == {"encoder"}
    assert trained_by(nll, objective.model) == {"encoder", "decoder"}
    assert trained_by(refinement, objective.model) == {"encoder", "decoder", "refiners.0", "refiners.1"}
    objective, batch, noise = made(tiny_vae(model__likelihood_of="last"))
    nll, kl = objective(*batch, noise)
    assert trained_by(nll, objective.model) == {"encoder", "decoder", "refiners.0", "refiners.1"}


@pytest.mark.parametrize("refiners", [1, 3])
def test_every_stage_learns(refiners: int) -> None:
    objective, batch, noise = made(tiny_vae(model__refiners=refiners, model__widths=(8, 8, 8), model__latent=8))
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.01)

    def distances() -> list[float]:
        with torch.no_grad():
            return [float((stage - batch.image).square().mean()) for stage in objective.model(*batch, noise).stages]

    before = distances()
    for _ in range(40):
        optimiser.zero_grad()
        objective.loss(objective(*batch, noise)).backward()
        optimiser.step()
    assert all(after < 0.3 * first for after, first in zip(distances(), before, strict=True))


def test_terms_of_another_model_are_its_own() -> None:
    objective, batch, noise = made(tiny_vae())
    other = Vae(objective.model.config)
    terms = objective.terms(other, *batch, noise)
    assert not torch.equal(terms, objective(*batch, noise))
    objective.model.load_state_dict(other.state_dict())
    torch.testing.assert_close(objective(*batch, noise), terms)


def test_refinement_of_ones_own_takes_the_place_of_the_settings() -> None:
    objective, batch, noise = made(tiny_vae(refinement__weight=0.5), Cubes())
    stages = objective.model(*batch, noise).stages
    nll, kl, refinement = objective(*batch, noise)
    expected = sum(2 * (stage - batch.image).abs().pow(3).sum() / BATCH for stage in stages[1:])
    torch.testing.assert_close(refinement, expected)
    loss = objective.loss(torch.stack([nll, kl, refinement]))
    torch.testing.assert_close(loss, nll + kl + 0.5 * refinement)
    loss.backward()
    torch.testing.assert_close(objective.refinement.scale.grad, 0.5 * expected.detach() / 2)
    assert "refinement.scale" in objective.state_dict()


@pytest.mark.parametrize(
    "settings",
    [tiny(), tiny_vae(model__likelihood_of="last"), tiny_vae(model__refiners=0)],
    ids=["draw", "residual", "no-refiner"],
)
def test_refinement_of_a_model_without_stages_to_refine_is_refused(settings: Any) -> None:
    with pytest.raises(FastdrawError, match=r"expected model.refiners of 1 or more, likelihood_of first"):
        made(settings, Cubes())
