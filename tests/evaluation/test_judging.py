"""The protocol of Table II: who is asked for what, with which noise, and what the classifier is shown."""

import pytest
import torch
from torch.testing import assert_close

from fastdraw.data import Batch
from fastdraw.evaluation import judging
from fastdraw.evaluation.classifier import SequenceAccuracy
from fastdraw.evaluation.judging import (
    draw_images,
    judge_prior,
    judge_reconstructions,
    judge_test_images,
    redraw_images,
)
from fastdraw.evaluation.reader import Accuracy
from fastdraw.models import Draw, DrawConfig
from fastdraw.models.classifier import ClassifierConfig, DigitClassifier, Logits


class Brightness(DigitClassifier):
    """Reads one digit from an image: its brightness in sixteenths."""

    def __init__(self):
        super().__init__(ClassifierConfig(multiplier=0.01, height=3, width=4, longest=2))

    def forward(self, images):
        read = (16 * images[:, 0, 0, 0]).round().long().clamp(max=9)
        digits = torch.nn.functional.one_hot(read, 10)[:, None].expand(-1, 2, -1).float()
        return Logits(torch.tensor([1.0, 0.0]).expand(len(images), 2), 50 * digits)


class Scribe(Draw):
    """Draws the first label it is asked for, and redraws an image as it is; both wrong where the noise says so."""

    wrong = 0.0

    def sample(self, labels, lengths, noise, **_):
        return torch.logit(self._image(labels[:, 0], noise), eps=1e-6)

    def forward(self, image, labels, lengths, noise, **_):
        output, _ = super().forward(image, labels, lengths, noise, trace=True)
        return output._replace(canvas=torch.logit(self._image(16 * image[:, 0, 0, 0], noise), eps=1e-6))

    def _image(self, digit, noise):
        off = (noise[0, :, 0] > 0) * self.wrong
        return ((digit + off) / 16)[:, None, None, None].expand(-1, 1, 3, 4)


SHARES = SequenceAccuracy(*[Accuracy(0, 1, 0.0, 0.0, 1.0)] * 3)


@pytest.fixture
def scribe():
    sizes = {"height": 3, "width": 4, "hidden": 4, "latent": 1, "n_read": 2, "n_write": 2, "align": 4}
    return Scribe(DrawConfig(**sizes, steps_per_label=1))


def numbers(count):
    labels = torch.arange(count)[:, None] % 8
    image = (labels / 16)[..., None, None].expand(-1, 1, 3, 4)
    return Batch(image, labels, torch.ones(count, dtype=torch.int64))


def test_the_real_images_are_read_themselves():
    batch = numbers(6)
    wrong = batch._replace(labels=torch.tensor([[0], [1], [2], [7], [7], [7]]))
    assert judge_test_images(Brightness(), batch).predicted_length == 6
    assert judge_test_images(Brightness(), wrong).model_dump() == {
        "images": 6, "predicted_length": 3, "given_length": 3, "digits": 3,
    }  # fmt: skip


def test_as_many_are_drawn_as_asked_for_with_the_labels_over_and_over(scribe, monkeypatch):
    seen = []
    monkeypatch.setattr(judging, "sequence_accuracy", lambda *given: seen.append(given) or SHARES)
    judge_prior(scribe, Brightness(), numbers(3), 7, seed=0)
    _, images, labels, lengths = seen[0]
    assert labels[:, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert lengths.tolist() == [1] * 7
    assert_close(16 * images[:, 0, 0, 0], labels[:, 0].float(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["prior", "reconstructions"])
def test_what_is_read_is_drawn_with_the_noise_of_the_seed(scribe, kind):
    scribe.wrong = 1.0

    def right(seed):
        if kind == "prior":
            return judge_prior(scribe, Brightness(), numbers(300), 300, seed).predicted_length
        return judge_reconstructions(scribe, Brightness(), numbers(300), seed).predicted_length

    assert 100 < right(0) < 200
    assert right(0) == right(0)
    assert len({right(seed) for seed in range(4)}) > 1


def test_many_images_are_drawn_and_redrawn_as_few_are(monkeypatch):
    model = Draw(DrawConfig(height=3, width=4, hidden=4, latent=2, n_read=2, n_write=2, align=4, steps_per_label=2))
    batch = Batch(torch.rand(7, 1, 3, 4), torch.randint(10, (7, 2)), torch.tensor([2, 1, 2, 2, 1, 2, 2]))
    monkeypatch.setattr(judging, "CHUNK", 3)
    drawn = draw_images(model, batch.labels, batch.lengths, torch.Generator().manual_seed(1))
    redrawn = redraw_images(model, batch, seed=1)

    generator = torch.Generator().manual_seed(1)
    noise = torch.cat([model.noise(rows, 2, generator) for rows in (3, 3, 1)], 1)
    with torch.no_grad():
        assert_close(drawn, model.sample(batch.labels, batch.lengths, noise).sigmoid())
        assert_close(redrawn, model(*batch, noise).canvas.sigmoid())
