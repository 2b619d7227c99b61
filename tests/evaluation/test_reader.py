"""The reader and what is counted with it."""

import math

import pytest
import torch
from torch.testing import assert_close

from fastdraw.data import MultiDigits, load_cells
from fastdraw.evaluation import accuracy, read_digits, reader_accuracy, train_reader
from fastdraw.models.reader import DigitReader


@pytest.fixture(scope="module")
def held_out():
    return load_cells(None, "test")


def test_train_reader_reads_held_out_source(held_out):
    reader = train_reader(load_cells(None, "train"), seed=0, steps=100)

    assert reader_accuracy(reader, held_out).value >= 0.95
    assert not reader.training


def test_train_reader_depends_on_its_seed_alone(held_out):
    torch.manual_seed(5)
    first = train_reader(held_out, seed=0, steps=4)
    drawn = torch.rand(1)
    torch.manual_seed(6)
    again, other = (train_reader(held_out, seed=seed, steps=4) for seed in (0, 1))
    torch.manual_seed(5)

    assert_close(again.state_dict(), first.state_dict(), rtol=0, atol=0)
    assert not torch.equal(other.layers[0].weight, first.layers[0].weight)
    assert_close(torch.rand(1), drawn, rtol=0, atol=0)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_read_digits_reads_the_rightmost_cells(held_out, length):
    torch.manual_seed(0)
    reader = DigitReader().eval()
    lengths = [float(n == length) for n in (1, 2, 3, 4)]
    image, digits, _ = MultiDigits(held_out, lengths, 300, seed=0).batch(0)

    read = read_digits(reader, image, length)

    assert read.shape == digits.shape
    for place in range(length):
        left = 64 - 16 * (length - place)
        with torch.no_grad():
            expected = reader(image[..., left : left + 16]).argmax(1)
        assert_close(read[:, place], expected)


def test_accuracy_counts_rows_that_are_right_in_every_digit():
    asked = torch.tensor([[1, 5, 7]] * 4)
    read = torch.tensor([[1, 5, 7], [1, 5, 1], [7, 5, 1], [1, 5, 7]])

    assert accuracy(read, asked)[:3] == (2, 4, 0.5)


@pytest.mark.parametrize(("correct", "total"), [(0, 10), (8, 10), (400, 500), (500, 500)])
def test_accuracy_interval_is_wilsons(correct, total):
    read = torch.zeros(total, 1, dtype=torch.int64)
    asked = (torch.arange(total)[:, None] >= correct).long()
    z, share = 1.959963984540054, correct / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))

    result = accuracy(read, asked)

    assert (result.correct, result.total, result.value) == (correct, total, share)
    assert result.low == pytest.approx(centre - half, abs=1e-12)
    assert result.high == pytest.approx(centre + half, abs=1e-12)


def test_accuracy_prints_as_a_sentence_does():
    read = torch.arange(10)[:, None]

    assert str(accuracy(read, read.clamp(max=7))) == "80.0% (49.0% to 94.3%, 8 of 10)"
