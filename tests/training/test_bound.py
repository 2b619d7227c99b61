"""The bound on held-out images: of test digits only, of the whole sum, and the same every time."""

import pytest
import torch

from fastdraw.data import load_cells
from fastdraw.training.bound import mean_terms, measure_bound, measure_by_step, nll_and_kl, repeat
from fastdraw.training.objective import Objective
from fastdraw.training.sources import held_out_source
from fastdraw.training.state import TrainingState
from tests.training.tiny import tiny


@pytest.fixture
def model():
    return TrainingState(tiny(), torch.device("cpu")).model


def test_held_out_images_are_made_of_test_digits(model) -> None:
    digits = held_out_source(tiny(seed=5), 8)
    assert torch.equal(digits.digits.cells, load_cells(None, "test").cells)
    assert torch.equal(digits.batch(3).image, held_out_source(tiny(seed=6), 8).batch(3).image)


def test_terms_are_sums_over_pixels_and_steps_and_means_over_images(model) -> None:
    batch = held_out_source(tiny(), 8).batch(0)
    terms = nll_and_kl(model, batch, torch.Generator().manual_seed(1))
    noise = model.noise(8, batch.labels.shape[1], torch.Generator().manual_seed(1))
    nll, kl, canvas = model(*batch, noise)
    by_pixel = -(batch.image * canvas.sigmoid().log() + (1 - batch.image) * (-canvas).sigmoid().log())
    torch.testing.assert_close(terms[0], by_pixel.sum() / 8)
    torch.testing.assert_close(terms[1], kl.sum() / 8)
    torch.testing.assert_close(terms[0], nll.mean())


def test_bound_is_the_mean_of_its_batches_and_leaves_the_random_state(model) -> None:
    digits, random = held_out_source(tiny(), 8), torch.get_rng_state()
    bound = measure_bound(model, digits, 3)
    assert measure_bound(model, digits, 3) == bound
    assert torch.equal(torch.get_rng_state(), random)
    generator = torch.Generator().manual_seed(0)
    terms = torch.stack([nll_and_kl(model, digits.batch(index), generator) for index in range(3)]).mean(0)
    assert bound == pytest.approx(tuple(terms.tolist()))


def test_samples_of_an_image_are_averaged_in_both_terms(model) -> None:
    """The estimate of S samples is the mean of S estimates of one, each with the noise of its sample."""
    samples, batch = 3, held_out_source(tiny(), 8).batch(0)
    noise = model.noise(8 * samples, batch.labels.shape[1], torch.Generator().manual_seed(1))
    terms = mean_terms(Objective(model, tiny()), repeat(batch, samples), noise)
    outputs = [model(*batch, noise[:, sample::samples]) for sample in range(samples)]
    single = torch.stack([torch.stack([output.nll.mean(), output.kl.sum(0).mean()]) for output in outputs])
    torch.testing.assert_close(terms, single.mean(0))
    assert (single.std(0) > 0).all()


def test_kl_by_step_is_the_mean_of_every_step_and_sums_to_the_kl(model) -> None:
    source = held_out_source(tiny(data__lengths=(0, 0, 1, 0)), 8)
    nll, kls = measure_by_step(model, [source.batch(index) for index in range(2)])
    generator = torch.Generator().manual_seed(0)
    noises = [model.noise(8, 3, generator) for _ in range(2)]
    outputs = [model(*source.batch(index), noise) for index, noise in enumerate(noises)]
    assert kls == pytest.approx(torch.cat([output.kl for output in outputs], 1).mean(1).tolist(), rel=1e-5)
    assert (nll, sum(kls)) == pytest.approx(tuple(measure_bound(model, source, 2)), rel=1e-5)
