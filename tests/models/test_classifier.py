"""The multi-digit classifier: its layers, what its loss sees, and what it reads."""

import math
from itertools import pairwise, product

import pytest
import torch
from pydantic import ValidationError
from torch.testing import assert_close

from fastdraw.models.classifier import ClassifierConfig, DigitClassifier, Logits, decode, sequence_loss

KINDS = ["goodfellow", "goodfellow-bn"]
LABELS, LENGTHS = torch.tensor([[7, 0, 0], [3, 0, 9], [1, 6, 0]]), torch.tensor([1, 3, 2])


def tiny(kind: str = "goodfellow-bn", **changes) -> DigitClassifier:
    sizes = {"multiplier": 0.02, "height": 9, "width": 14, "longest": 4, "dropout": 0.5}
    return DigitClassifier(ClassifierConfig(kind=kind, **(sizes | changes)))


def parameter_count(**config) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in DigitClassifier(ClassifierConfig(**config)).parameters())


def test_the_papers_sizes() -> None:
    # 54 x 54 in colour; strides 2, 1, 2, 1, .. halve four times, rounding up: 27, 14, 7, 4.
    maps = [48, 64, 128, 160, 192, 192, 192, 192]
    convolutions = 3 * 48 * (3 * 25 + 1)  # maxout units of three filters
    convolutions += sum(after * (before * 25 + 1) for before, after in pairwise(maps))
    local = 4 * 4 * 192 * (192 * 25 + 1)
    dense = 3072 * (192 * 4 * 4 + 1) + 3072 * (3072 + 1)
    heads = 5 * (3072 + 1) + 5 * 10 * (3072 + 1)
    count = parameter_count(kind="goodfellow", multiplier=1, height=54, width=54, channels=3, longest=5)
    assert count == convolutions + local + dense + heads

    # Batch normalisation has a gain and a bias a map, in place of the bias of the layer before.
    convolutions = 25 * (3 * 48 + sum(before * after for before, after in pairwise(maps)))
    dense = 3072 * 192 * 4 * 4 + 3072 * 3072
    count = parameter_count(kind="goodfellow-bn", multiplier=1, height=54, width=54, channels=3, longest=5)
    assert count == convolutions + 2 * sum(maps) + dense + 2 * 2 * 3072 + heads


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_is_read_alone_whatever_its_brightness(kind: str) -> None:
    classifier, images = tiny(kind, channels=2).eval(), torch.rand(3, 2, 9, 14)
    length, digits = classifier(images)
    assert length.shape == (3, 4)
    assert digits.shape == (3, 4, 10)
    assert_close(classifier(images[1:2] + 0.7), Logits(length[1:2], digits[1:2]), atol=1e-4, rtol=1e-4)
    assert not torch.equal(length[0], length[1])


def test_the_first_layer_is_of_maxout_units() -> None:
    classifier = tiny("goodfellow", multiplier=0.05, dropout=0).double()
    convolution, images = classifier.hidden[0], torch.rand(2, 1, 9, 14, dtype=torch.float64)
    filtered = convolution(images)
    expected = torch.stack([filtered[:, 3 * unit : 3 * unit + 3].max(1).values for unit in range(2)], 1)
    assert_close(classifier.hidden[:3](images), expected)


def test_the_subtractive_normalisation_takes_away_the_mean_of_its_window() -> None:
    x = torch.rand(1, 3, 4, 5, dtype=torch.float64)
    layers = tiny("goodfellow").hidden
    normalise = next(layer for layer in layers if type(layer).__name__ == "_SubtractMean")
    expected = x.clone()
    for i, j in product(range(4), range(5)):
        expected[:, :, i, j] -= x[:, :, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean()
    assert_close(normalise(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_pooling_keeps_or_halves_the_size(stride: int) -> None:
    x = -torch.rand(1, 2, 5, 4)
    pools = [layer for layer in tiny().hidden if type(layer).__name__ == "_Pool"]
    assert [pool.stride for pool in pools] == [2, 1, 2, 1, 2, 1, 2, 1]
    expected = torch.stack(
        [x[:, :, i : i + 2, j : j + 2].amax((2, 3)) for i in range(0, 5, stride) for j in range(0, 4, stride)], -1
    )
    assert_close(pools[stride % 2](x).flatten(2), expected)


def test_the_locally_connected_layer_has_filters_of_its_own_at_every_pixel() -> None:
    layers = tiny("goodfellow", multiplier=0.02, height=40, width=56).double().hidden
    local = next(layer for layer in layers if type(layer).__name__ == "_LocallyConnected")
    torch.nn.init.normal_(local.bias)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64)
    out = local(x)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for pixel, (i, j) in enumerate(product(range(3), range(4))):
        window = padded[:, :, i : i + 5, j : j + 5].flatten(1)
        assert_close(out[:, :, i, j], window @ local.weight[pixel] + local.bias[pixel, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_absent_digits_teach_nothing(kind: str) -> None:
    classifier = tiny(kind)
    labels, lengths = torch.tensor([[7, 0], [3, 9]]), torch.tensor([1, 2])
    sequence_loss(classifier(torch.rand(2, 1, 9, 14)), labels, lengths).backward()
    gradient = classifier.digits.weight.grad.view(4, 10, -1)
    assert gradient[:2].abs().sum((1, 2)).all()
    assert not gradient[2:].any()
    assert not classifier.digits.bias.grad.view(4, 10)[2:].any()


def test_the_loss_is_that_of_length_and_present_digits() -> None:
    logits = Logits(torch.randn(3, 4), torch.randn(3, 4, 10))
    length, digits = logits.length.softmax(1), logits.digits.softmax(2)
    total = 0.0
    for row, (labels, count) in enumerate(zip(LABELS.tolist(), LENGTHS.tolist(), strict=True)):
        total -= math.log(length[row, count - 1])
        for place in range(count):
            total -= math.log(digits[row, count - 1 - place, labels[place]])  # heads count from the right
    assert sequence_loss(logits, LABELS, LENGTHS).item() == pytest.approx(total / 3, rel=1e-5)


def test_decoding_finds_the_most_probable_sequence() -> None:
    logits = Logits(torch.randn(12, 3), 2 * torch.randn(12, 3, 10))
    length, digits = logits.length.log_softmax(1).tolist(), logits.digits.log_softmax(2).tolist()
    labels, lengths = decode(logits)
    chosen = set()
    for row in range(12):
        scores = {
            sequence: length[row][count - 1]
            + sum(digits[row][count - 1 - place][symbol] for place, symbol in enumerate(sequence))
            for count in (1, 2, 3)
            for sequence in product(range(10), repeat=count)
        }
        best = max(scores, key=scores.__getitem__)
        assert lengths[row] == len(best)
        assert labels[row].tolist() == [*best, *[0] * (3 - len(best))]
        chosen.add(len(best))
    assert chosen == {1, 2, 3}
    assert not torch.equal(lengths, 1 + logits.length.argmax(1))  # the digits have their say


def test_decoding_with_given_lengths_reads_that_many_places() -> None:
    logits = Logits(torch.randn(3, 4), torch.randn(3, 4, 10))
    labels, lengths = decode(logits, LENGTHS)
    best = logits.digits.argmax(2).tolist()
    assert lengths is LENGTHS
    assert labels.tolist() == [[*best[row][:count][::-1], *[0] * (4 - count)] for row, count in enumerate((1, 3, 2))]


@pytest.mark.parametrize(
    "wrong", [{"kind": "alexnet"}, {"multiplier": 0}, {"longest": 0}, {"dropout": 1.0}, {"height": 0}, {"depth": 3}]
)
def test_a_wrong_size_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ClassifierConfig(**wrong)
