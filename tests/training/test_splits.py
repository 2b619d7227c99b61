"""Who sees which digits: the model and the reader learn from train digits alone, and are judged on test digits."""

import pytest
import torch
from torch.nn.utils import get_total_norm

from fastdraw.cli.evaluate import measure
from fastdraw.data import MultiDigits, load_cells
from fastdraw.models import Draw
from fastdraw.models.reader import DigitReader
from fastdraw.training import loop, train
from tests.training.tiny import tiny


def test_training_starts_from_the_mean_of_train_digits_and_clips(tmp_path, monkeypatch) -> None:
    settings = tiny(steps=2, seed=3, optimiser__clip=0.01)
    digits = MultiDigits(load_cells(None, "train"), settings.data.lengths, settings.batch_size, 3)
    canvases, images, norms = [], [], []
    real = loop.mean_terms

    def watched(objective, batch, noise):
        canvases.append(objective.model.canvas0.detach().clone())
        images.append(batch.image)
        return real(objective, batch, noise)

    class Adam(torch.optim.Adam):
        def step(self) -> None:
            norms.append(float(get_total_norm([p.grad for group in self.param_groups for p in group["params"]])))
            super().step()

    monkeypatch.setattr(loop, "mean_terms", watched)
    monkeypatch.setattr(torch.optim, "Adam", Adam)
    train(settings, tmp_path)

    expected = Draw(settings.model)
    expected.set_canvas(digits.mean_image())
    assert torch.equal(canvases[0], expected.canvas0)
    assert [torch.equal(image, digits.batch(step).image) for step, image in enumerate(images)] == [True, True]
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)


def test_the_reader_learns_from_train_digits_and_is_judged_on_test_digits(monkeypatch) -> None:
    from fastdraw import evaluation

    learned, judged = [], []
    real = evaluation.reader_accuracy

    def learn(digits, seed):
        learned.append(digits.cells)
        return DigitReader().eval()

    def judge(reader, digits):
        judged.append(digits.cells)
        return real(reader, digits)

    monkeypatch.setattr(evaluation, "train_reader", learn)
    monkeypatch.setattr(evaluation, "reader_accuracy", judge)
    measure(Draw(tiny().model), tiny(), 4)

    assert [torch.equal(cells, load_cells(None, "train").cells) for cells in learned] == [True]
    assert [torch.equal(cells, load_cells(None, "test").cells) for cells in judged] == [True]


def test_no_reader_reads_what_a_model_drew_that_is_told_no_digits() -> None:
    settings = tiny(model__labels="none")
    found = measure(Draw(settings.model), settings, 4)
    assert "test" in found
    assert not {"accuracy", "reader"} & set(found)
