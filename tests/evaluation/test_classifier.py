"""The judge of sequences: what training teaches it, what is counted, and what comes back from its folder."""

import json

import pytest
import torch
from torch.testing import assert_close

from fastdraw.data import Batch, MultiDigits, load_cells
from fastdraw.errors import FastdrawError
from fastdraw.evaluation import (
    Augmentation,
    augment,
    load_classifier,
    measure_classifier,
    read_sequences,
    save_classifier,
    sequence_accuracy,
    train_classifier,
)
from fastdraw.models.classifier import ClassifierConfig, DigitClassifier, Logits, sequence_loss

TINY = ClassifierConfig(multiplier=0.02)
STILL = Augmentation(shift=0, scale=0, slant=0, contrast=0, inversion=0)


@pytest.fixture(scope="module")
def digits():
    return {split: load_cells(None, split) for split in ("train", "test")}


@pytest.fixture(scope="module")
def source(digits):
    return MultiDigits(digits["train"], [1, 1, 0, 0], batch_size=16, seed=0)


@pytest.fixture(scope="module")
def trained(source):
    return train_classifier(source, TINY, steps=3)


class OneDigit(MultiDigits):
    """The rightmost slot alone, 32 x 16, with one digit in it."""

    def __init__(self, cells, batch_size, seed):
        super().__init__(cells, [1, 0, 0, 0], batch_size, seed)

    def mixed_batch(self, index):
        image, labels, lengths = super().mixed_batch(index)
        return Batch(image[..., 48:], labels, lengths)


class Script(DigitClassifier):
    """Gives image number n, whose only bright pixel is its n-th, the n-th of the logits that it was made with."""

    def __init__(self, logits: Logits):
        super().__init__(ClassifierConfig(multiplier=0.01, height=1, width=8, longest=logits.length.shape[1]))
        self.logits = logits

    def forward(self, images):
        return Logits(*(part[images.flatten(1).argmax(1)] for part in self.logits))


def scripted(read: list[str], longest: int = 3) -> tuple[Script, torch.Tensor]:
    """A classifier that reads these numbers, and images to read them from; places beyond a number read as 5."""
    length, digits = torch.zeros(len(read), longest), torch.zeros(len(read), longest, 10)
    digits[:, :, 5] = 20
    for row, number in enumerate(read):
        length[row, len(number) - 1] = 10
        for place, digit in enumerate(reversed(number)):
            digits[row, place, int(digit)] = 40
    return Script(Logits(length, digits)), torch.eye(8)[: len(read)].view(-1, 1, 1, 8)


@pytest.mark.parametrize("kind", ["goodfellow", "goodfellow-bn"])
def test_training_teaches_to_read(digits, kind, monkeypatch):
    losses = []

    def recorded(*arguments):
        losses.append(sequence_loss(*arguments))
        return losses[-1]

    monkeypatch.setattr("fastdraw.evaluation.classifier.sequence_loss", recorded)
    config = ClassifierConfig(kind=kind, multiplier=0.1, longest=2, height=32, width=16)
    mild = Augmentation(shift=0.5, scale=0.05, contrast=0.1)

    classifier = train_classifier(OneDigit(digits["train"], 32, seed=0), config, steps=80, augmentation=mild)

    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    shares = sequence_accuracy(classifier, *OneDigit(digits["test"], 400, seed=1).mixed_batch(0))
    assert shares.predicted.low > 0.25  # chance reads one in ten
    assert not classifier.training


def test_training_depends_on_its_seed_alone(source):
    torch.manual_seed(5)
    first = train_classifier(source, TINY, steps=2)
    drawn = torch.rand(1)
    torch.manual_seed(6)
    again, other = (train_classifier(source, TINY, steps=2, seed=seed) for seed in (0, 1))
    torch.manual_seed(5)

    assert_close(again.state_dict(), first.state_dict(), rtol=0, atol=0)
    assert not torch.equal(other.length.weight, first.length.weight)
    assert_close(torch.rand(1), drawn, rtol=0, atol=0)


def test_a_loss_that_is_not_finite_stops_the_training(source, monkeypatch):
    monkeypatch.setattr(
        "fastdraw.evaluation.classifier.sequence_loss", lambda *_: torch.tensor(torch.nan, requires_grad=True)
    )
    with pytest.raises(FastdrawError, match="loss is nan at step 1: not finite"):
        train_classifier(source, TINY, steps=2)


def test_images_and_lengths_that_do_not_fit_are_refused(source, trained):
    with pytest.raises(
        FastdrawError, match=r"images must be \(B, 3, 32, 64\) for this classifier, got \(16, 1, 32, 64\)"
    ):
        train_classifier(source, TINY.model_copy(update={"channels": 3}), steps=1)
    with pytest.raises(FastdrawError, match=r"lengths must lie in 1..1 for this classifier, got 1..2"):
        train_classifier(source, TINY.model_copy(update={"longest": 1}), steps=1)
    with pytest.raises(FastdrawError, match=r"images must be \(B, 1, 32, 64\)"):
        read_sequences(trained, torch.rand(2, 1, 32, 32))
    with pytest.raises(FastdrawError, match=r"lengths must lie in 1..4 for this classifier, got 0..2"):
        read_sequences(trained, torch.rand(2, 1, 32, 64), torch.tensor([2, 0]))


def test_a_batch_of_one_cannot_be_normalised(digits):
    one = MultiDigits(digits["test"], [1, 1, 0, 0], batch_size=1, seed=0)
    with pytest.raises(FastdrawError, match="takes at least 2 images in a batch, got 1"):
        train_classifier(one, TINY, steps=1)
    train_classifier(one, TINY.model_copy(update={"kind": "goodfellow"}), steps=1)


def test_augmentation_leaves_an_image_alone_where_nothing_is_asked():
    images = torch.rand(3, 2, 8, 12)
    assert_close(augment(images, STILL), images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("change", ["shift", "scale", "slant"])
def test_augmentation_moves_every_image_within_its_bounds(change):
    images = torch.zeros(200, 1, 33, 65)
    images[:, :, 12, 48] = 1  # 16 right of the centre and 4 above it
    moved = augment(images, STILL.model_copy(update={change: {"shift": 3, "scale": 0.25, "slant": 0.5}[change]}))

    row, column = (
        (moved * along).sum((1, 2, 3)) / moved.sum((1, 2, 3)) - start
        for along, start in ((torch.arange(33.0)[:, None], 12), (torch.arange(65.0), 48))
    )
    most_down, most_across = {"shift": (3, 3), "scale": (4 / 0.75 - 4, 16 / 0.75 - 16), "slant": (0, 2)}[change]
    for offset, most in ((row, most_down), (column, most_across)):
        assert offset.abs().max() <= most + 0.3
        assert most == 0 or offset.max() > most / 2
        assert most == 0 or offset.min() < -most / 3


def test_augmentation_changes_contrast_and_sign():
    images = torch.rand(400, 1, 4, 4)
    factors = augment(images, STILL.model_copy(update={"contrast": 0.4, "inversion": 0.25})) / images
    factor = factors.mean((1, 2, 3))
    assert_close(factors, factor.view(-1, 1, 1, 1).expand_as(factors), atol=1e-2, rtol=1e-2)
    assert 0.6 <= factor.abs().min() < 0.65
    assert 1.35 < factor.abs().max() <= 1.4
    assert 0.15 < (factor < 0).float().mean() < 0.35


def test_read_sequences_reads_alone_or_with_lengths():
    classifier, images = scripted(["7", "42", "305"])
    labels, lengths = read_sequences(classifier, images)
    assert labels.tolist() == [[7, 0, 0], [4, 2, 0], [3, 0, 5]]
    assert lengths.tolist() == [1, 2, 3]
    labels, lengths = read_sequences(classifier, images, torch.tensor([2, 1, 3]))
    assert labels.tolist() == [[5, 7, 0], [2, 0, 0], [3, 0, 5]]
    assert lengths.tolist() == [2, 1, 3]


def test_many_images_are_read_as_few_are(trained, monkeypatch):
    images = torch.rand(7, 1, 32, 64)
    expected = read_sequences(trained, images)
    monkeypatch.setattr("fastdraw.evaluation.classifier.PART", 3)
    assert_close(read_sequences(trained, images), expected)


def test_accuracy_is_of_sequences_and_of_digits():
    # Read rightly; one digit wrong; too long, which a given length mends; 30 for 3, which padding must not hide.
    classifier, images = scripted(["7", "42", "105", "30"])
    labels, lengths = torch.tensor([[7, 0], [4, 3], [0, 5], [0, 0]]), torch.tensor([1, 2, 2, 1])

    shares = sequence_accuracy(classifier, images, labels, lengths)

    assert shares.predicted[:2] == (1, 4)
    assert shares.given[:2] == (3, 4)
    assert shares.digits[:2] == (5, 6)


def test_a_length_too_many_is_no_hit_although_the_padding_agrees():
    classifier, images = scripted(["30"])
    shares = sequence_accuracy(classifier, images, torch.tensor([[3, 0]]), torch.tensor([1]))
    assert shares.predicted.correct == 0


def test_measures_are_of_each_length_and_of_all():
    classifier, images = scripted(["7", "42", "305", "9"])
    labels, lengths = torch.tensor([[7, 0, 0], [4, 3, 0], [3, 0, 5], [9, 0, 0]]), torch.tensor([1, 2, 3, 1])

    report = json.loads(json.dumps(measure_classifier(classifier, images, labels, lengths)))

    counted = {
        name: {kind: (share["correct"], share["total"]) for kind, share in of.items()} for name, of in report.items()
    }
    assert counted == {
        "1": {"predicted": (2, 2), "given": (2, 2), "digits": (2, 2)},
        "2": {"predicted": (0, 1), "given": (0, 1), "digits": (1, 2)},
        "3": {"predicted": (1, 1), "given": (1, 1), "digits": (3, 3)},
        "all": {"predicted": (3, 4), "given": (3, 4), "digits": (6, 7)},
    }
    assert report["all"]["given"]["low"] < 0.75 < report["all"]["given"]["high"]


@pytest.mark.parametrize("kind", ["goodfellow", "goodfellow-bn"])
def test_a_saved_classifier_comes_back_bit_for_bit(source, kind, tmp_path):
    classifier = train_classifier(source, TINY.model_copy(update={"kind": kind}), steps=2)
    save_classifier(classifier, {"test": 1}, tmp_path / "new" / "judge")
    loaded = load_classifier(tmp_path / "new" / "judge")

    assert loaded.config == classifier.config
    assert_close(loaded.state_dict(), classifier.state_dict(), rtol=0, atol=0)
    images = torch.rand(3, 1, 32, 64)
    assert_close(loaded(images), classifier(images), rtol=0, atol=0)
    assert not loaded.training
    assert json.loads((tmp_path / "new" / "judge" / "metrics.json").read_text()) == {"test": 1}
    assert {path.name for path in (tmp_path / "new" / "judge").iterdir()} == {
        "config.json",
        "metrics.json",
        "model.safetensors",
    }


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(trained, tmp_path, name):
    save_classifier(trained, {}, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FastdrawError, match=rf"{name} is missing: .* fastdraw train-classifier"):
        load_classifier(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is no classifier's: file: Invalid JSON"),
        ('{"depth": 3}', "config.json is no classifier's: depth: Extra inputs"),
        ('{"multiplier": 0.03}', r"model.safetensors: .* is \(1, 1, 5, 5\) float32, expected"),
        ('{"kind": "goodfellow", "multiplier": 0.02}', "model.safetensors: .* is (missing|not expected)"),
    ],
)
def test_a_config_that_is_broken_or_of_another_classifier_is_refused(trained, tmp_path, text, message):
    save_classifier(trained, {}, tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(FastdrawError, match=message):
        load_classifier(tmp_path)


def test_a_damaged_model_is_refused(trained, tmp_path):
    save_classifier(trained, {}, tmp_path)
    path = tmp_path / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    with pytest.raises(FastdrawError, match="is damaged or no safetensors file"):
        load_classifier(tmp_path)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(FastdrawError, match="checksum does not match"):
        load_classifier(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(trained, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FastdrawError, match=r"cannot make the folder .*file/judge: Not a directory"):
        save_classifier(trained, {}, tmp_path / "file" / "judge")
