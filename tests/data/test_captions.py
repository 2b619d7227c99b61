"""Captioned digits: the image shows what the words say, and what is held out stays out."""

import re

import pytest
import torch
from torch.testing import assert_close

from fastdraw.data.captions import TEMPLATES, WORDS, Captions, decode, encode
from fastdraw.data.labelled import LabelledImages
from fastdraw.data.mnist import load_mnist_images
from fastdraw.errors import FastdrawError


@pytest.fixture(scope="module")
def digits():
    return load_mnist_images(None, "test")


@pytest.fixture(scope="module")
def coloured():
    """Ten images, each filled with its own grey, so that a pixel tells the digit."""
    labels = torch.arange(10)
    images = (labels * 20 + 20).byte()[:, None, None, None].expand(10, 1, 28, 28).contiguous()
    return LabelledImages(images, labels[:, None], torch.ones(10, dtype=torch.int64))


def sentences(source: Captions, batches: int) -> list[str]:
    return [decode(labels) for index in range(batches) for labels in source.batch(index).labels]


def combinations(caption: str) -> list[tuple[str, int, int]]:
    """The digits of a caption, each with the sentence and its place in it."""
    text = re.sub(r"\d", "{}", caption)
    return [(text, place, int(digit)) for place, digit in enumerate(re.findall(r"\d", caption))]


HELD_OUT = {(template.text, at, place.held_out) for template in TEMPLATES for at, place in enumerate(template.places)}


def test_there_are_22_words_8_sentences_of_12_words_and_12_held_out_combinations():
    assert len(set(WORDS)) == 22
    assert {len(encode(template.text.format(0, 0))) for template in TEMPLATES} == {12}
    assert len({template.text for template in TEMPLATES}) == 8
    assert len(HELD_OUT) == 12
    assert {digit for _, _, digit in HELD_OUT} == set(range(10))


def test_a_batch_is_of_the_promised_form(digits):
    image, labels, lengths = Captions(digits, 7, seed=0).batch(0)

    assert (image.shape, image.dtype) == ((7, 1, 60, 60), torch.float32)
    assert (labels.shape, labels.dtype) == ((7, 12), torch.int64)
    assert (lengths.tolist(), lengths.dtype) == ([12] * 7, torch.int64)
    assert image.min() == 0
    assert 0.9 < image.max() <= 1


@pytest.mark.parametrize("held_out", [False, True])
def test_the_image_shows_what_the_words_say(coloured, held_out):
    image, labels, _ = Captions(coloured, 300, seed=0, held_out=held_out).batch(0)
    spots = {  # every place's middle (row, column), which no other place of its sentence covers
        "left of": [(30, 16), (30, 44)],
        "right of": [(30, 44), (30, 16)],
        "top of": [(15, 30), (45, 30)],
        "bottom of": [(45, 30), (15, 30)],
        "top left": [(15, 16)],
        "bottom right": [(45, 44)],
        "top right": [(15, 44)],
        "bottom left": [(45, 16)],
    }
    seen = set()
    for picture, words in zip(image[:, 0], labels, strict=True):
        caption = decode(words)
        where = next(
            name for name in spots if f" {name} " in caption and (" of the digit " in caption) == ("of" in name)
        )
        asked = [int(digit) for digit in re.findall(r"\d", caption)]
        assert [round(float(picture[spot]) * 255) // 20 - 1 for spot in spots[where]] == asked
        inked = int((picture > 0).sum())
        assert inked == 784 if len(asked) == 1 else 1400 < inked <= 1568
        seen.add(where)
    assert seen == spots.keys()


def test_digits_stand_anywhere_that_their_sentence_allows(coloured):
    source = Captions(coloured, 2000, seed=0)
    image, labels, _ = source.batch(0)
    corners = set()
    for picture, words in zip(image[:, 0], labels, strict=True):
        if "bottom right" in decode(words):
            rows, columns = picture.nonzero().unbind(1)
            corners.add((int(rows.min()), int(columns.min())))
    assert corners == {(row, column) for row in (30, 31, 32) for column in (28, 29, 30, 31, 32)}


def test_training_never_sees_what_is_held_out_and_the_held_out_sees_nothing_else(coloured):
    training = sentences(Captions(coloured, 500, seed=0), 12)
    held_out = sentences(Captions(coloured, 500, seed=0, held_out=True), 4)

    assert all(HELD_OUT.isdisjoint(combinations(caption)) for caption in training)
    assert all(not HELD_OUT.isdisjoint(combinations(caption)) for caption in held_out)
    everything = {(text, at, digit) for text, at, _ in HELD_OUT for digit in range(10)}
    assert {found for caption in training for found in combinations(caption)} == everything - HELD_OUT
    assert {found for caption in held_out for found in combinations(caption)} >= HELD_OUT


def test_sentences_are_equally_likely(coloured):
    captions = sentences(Captions(coloured, 1000, seed=0), 5)
    counts = torch.tensor([sum(combinations(c)[0][0] == t.text for c in captions) for t in TEMPLATES])
    assert_close(counts / 5000, torch.full((8,), 1 / 8), rtol=0, atol=0.02)


@pytest.mark.parametrize("method", ["batch", "mixed_batch"])
def test_a_batch_depends_on_seed_and_index_alone(digits, method):
    first, again = (Captions(digits, 20, seed=3) for _ in range(2))
    draw = getattr(first, method)
    expected = draw(7)
    for index in (0, 8, 7):
        draw(index)

    assert_close(getattr(again, method)(7), expected, rtol=0, atol=0)
    assert not torch.equal(draw(8).image, expected.image)
    assert not torch.equal(getattr(Captions(digits, 20, seed=4), method)(7).image, expected.image)


@pytest.mark.parametrize("held_out", [False, True])
def test_mean_image_is_the_mean_of_many(digits, held_out):
    source = Captions(digits, 4000, seed=0, held_out=held_out)

    assert source.mean_image().dtype == torch.float32
    assert_close(source.batch(0).image.mean(0), source.mean_image(), rtol=0, atol=0.03)


def test_words_become_labels_and_labels_words():
    caption = "the digit 7 is at the top left of the image ."

    assert encode(caption).tolist() == [10, 11, 7, 12, 14, 10, 18, 15, 19, 10, 20, 21]
    assert decode(encode(caption)) == caption


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ("the digit seven is red", r"captions have no word 'seven': expected words of 0 1 .* the digit .* image \.$"),
        ("  ", r'a caption needs words, such as "the digit 7 is on the left of the digit 3 \."'),
    ],
)
def test_encode_names_what_it_cannot_read(caption, message):
    with pytest.raises(FastdrawError, match=message):
        encode(caption)


@pytest.mark.parametrize("label", [-1, 22])
def test_decode_names_a_label_without_a_word(label):
    with pytest.raises(FastdrawError, match=f"label {label} stands for no word: expected 0 to 21"):
        decode(torch.tensor([3, label]))


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda x: x, {"batch_size": 0}, "batch size must be at least 1, got 0"),
        (lambda x: x, {"seed": -1}, "seed must be at least 0, got -1"),
        (
            lambda x: LabelledImages(x.images[:, :, 1:], x.labels, x.lengths),
            {},
            r"captions are made of images of 1 x 28 x 28, got \(1, 27, 28\)",
        ),
        (
            lambda x: LabelledImages(x.images[:3], x.labels[:3], x.lengths[:3]),
            {},
            "captions need images of all ten digits, and there is none of the digit 3",
        ),
    ],
    ids=["batch-size", "seed", "size", "few-digits"],
)
def test_captions_reject_settings(coloured, change, settings, message):
    with pytest.raises(FastdrawError, match=message):
        Captions(change(coloured), **{"batch_size": 2, "seed": 0, **settings})
