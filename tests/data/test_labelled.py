"""Labelled images: what they refuse, and what streams of them draw."""

import math

import pytest
import torch

from fastdraw.data import EpochStream, ImageStream, LabelledImages
from fastdraw.errors import FastdrawError

COUNT = 12


def labelled(**changes: torch.Tensor) -> LabelledImages:
    """Image n is grey n all over, its labels are n as often as its length says, 1, 1, 1, 1, 2, .., 3."""
    number = torch.arange(COUNT)
    lengths = 1 + number // 4
    parts = {
        "images": number.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 3),
        "labels": number[:, None].masked_fill(torch.arange(3) >= lengths[:, None], 0),
        "lengths": lengths,
    }
    return LabelledImages(**(parts | changes))


@pytest.mark.parametrize("batch", ["batch", "mixed_batch"])
def test_a_batch_depends_on_seed_and_index_alone(batch: str) -> None:
    first, again = (ImageStream(labelled(), (1, 1, 1), 8, seed=3) for _ in range(2))
    getattr(first, batch)(7)
    for index in (2, 0, 2):
        for one, other in zip(getattr(first, batch)(index), getattr(again, batch)(index), strict=True):
            assert torch.equal(one, other)
    other = ImageStream(labelled(), (1, 1, 1), 8, seed=4)
    batches = [getattr(stream, batch)(index).image for stream, index in ((first, 0), (first, 1), (other, 0))]
    assert len({tuple(image[:, 0, 0, 0].tolist()) for image in batches}) == 3


@pytest.mark.parametrize("batch", ["batch", "mixed_batch"])
def test_images_come_with_their_labels_cut_to_the_longest(batch: str) -> None:
    stream = ImageStream(labelled(), (1, 1, 1), 8, seed=0)
    for index in range(20):
        image, labels, lengths = getattr(stream, batch)(index)
        number = (255 * image[:, 0, 0, 0]).round().long()
        assert torch.equal(lengths, 1 + number // 4)
        assert labels.shape == (8, int(lengths.max()))
        assert torch.equal(labels, labelled().labels[number, : labels.shape[1]])
        assert image.dtype == torch.float32


def test_lengths_come_as_often_as_their_weights_say_and_images_alike() -> None:
    stream = ImageStream(labelled(), (3, 0, 1), 2000, seed=0)
    image = stream.mixed_batch(0).image
    seen = torch.bincount((255 * image[:, 0, 0, 0]).round().long(), minlength=COUNT) / 2000
    expected = torch.tensor([3 / 16] * 4 + [0] * 4 + [1 / 16] * 4)
    assert (seen - expected).abs().max() < 4 * math.sqrt(3 / 16 / 2000)
    of_batches = torch.stack([ImageStream(labelled(), (3, 0, 1), 1, 0).batch(index).lengths for index in range(400)])
    assert abs((of_batches == 1).float().mean() - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 400)
    assert all(len(stream.batch(index).lengths.unique()) == 1 for index in range(3))


def test_the_mean_image_is_that_of_the_stream() -> None:
    mean = ImageStream(labelled(), (3, 0, 1), 4, seed=0).mean_image()
    torch.testing.assert_close(mean, torch.full((1, 2, 3), (0.75 * 1.5 + 0.25 * 9.5) / 255))


def test_a_binarised_pixel_is_1_as_often_as_it_is_bright() -> None:
    grey = torch.tensor([0, 51, 204, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    one = LabelledImages(grey, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64))
    stream = ImageStream(one, (1,), 2000, seed=0, binarise=True)
    image = stream.batch(0).image
    assert set(image.unique().tolist()) == {0.0, 1.0}
    assert (image.mean(0).flatten() - torch.tensor([0, 0.2, 0.8, 1])).abs().max() < 4 * 0.4 / 2000**0.5
    assert torch.equal(image, stream.batch(0).image)
    assert not torch.equal(image, stream.batch(1).image)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(COUNT, 2, 3, dtype=torch.uint8)}, r"must be \(N, C, H, W\).* got \(12, 2, 3\)"),
        ({"lengths": torch.ones(3, dtype=torch.int64)}, r"got \(12, 1, 2, 3\), \(12, 3\), \(3,\)"),
        ({"images": torch.zeros(COUNT, 1, 2, 3)}, "must be uint8, int64 and int64, got float32, int64, int64"),
        ({"lengths": torch.zeros(COUNT, dtype=torch.int64)}, r"lengths must lie in 1..3, got 0..0"),
        ({"lengths": torch.full((COUNT,), 4)}, r"lengths must lie in 1..3, got 4..4"),
    ],
)
def test_images_that_do_not_fit_are_refused(changes: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(FastdrawError, match=message):
        labelled(**changes)


def test_no_image_at_all_is_refused() -> None:
    whole = labelled()
    with pytest.raises(FastdrawError, match=r"N > 0; got \(0, 1, 2, 3\)"):
        LabelledImages(whole.images[:0], whole.labels[:0], whole.lengths[:0])


@pytest.mark.parametrize(
    ("weights", "batch_size", "seed", "message"),
    [
        ((0, 0, 0), 4, 0, r"lengths must be weights >= 0"),
        ((), 4, 0, r"lengths must be weights >= 0"),
        ((1, -1, 1), 4, 0, r"lengths must be weights >= 0"),
        ((math.nan, 1, 1), 4, 0, r"lengths must be weights >= 0"),
        ((math.inf, 1, 1), 4, 0, r"their sum finite"),
        ((1, 1, 1, 1), 4, 0, r"no image has 4 labels: set its weight in lengths to 0"),
        ((1, 1, 1), 0, 0, r"batch size must be at least 1, got 0"),
        ((1, 1, 1), 4, -1, r"seed must be at least 0, got -1"),
    ],
)
def test_a_stream_that_cannot_be_is_refused(weights, batch_size: int, seed: int, message: str) -> None:
    with pytest.raises(FastdrawError, match=message):
        ImageStream(labelled(), weights, batch_size, seed)


def one_length() -> LabelledImages:
    """Image n is grey n all over, its label is n."""
    return labelled(labels=torch.arange(COUNT)[:, None], lengths=torch.ones(COUNT, dtype=torch.int64))


def taken(stream: EpochStream, index: int) -> list[int]:
    """The numbers of the images in a batch, which comes with the labels and lengths of these images."""
    image, labels, lengths = stream.batch(index)
    number = (255 * image[:, 0, 0, 0]).round().long()
    assert torch.equal(image, (number / 255)[:, None, None, None].expand(-1, 1, 2, 3))
    assert labels.tolist() == number[:, None].tolist()
    assert lengths.tolist() == [1] * len(number)
    return number.tolist()


@pytest.mark.parametrize("batch_size", [1, 4, 5, 12, 31])
def test_every_image_comes_once_in_each_epoch_also_where_a_batch_crosses_its_end(batch_size: int) -> None:
    stream = EpochStream(one_length(), batch_size, seed=3)
    numbers = [number for index in range(5 * COUNT) for number in taken(stream, index)]
    epochs = [numbers[first : first + COUNT] for first in range(0, 5 * COUNT * batch_size, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)


def test_a_batch_of_an_epoch_depends_on_seed_and_index_alone() -> None:
    stream = EpochStream(one_length(), 5, seed=3)
    in_order = [taken(stream, index) for index in range(20)]
    for index in (19, 0, 7, 7, 2, 18, 1):
        assert taken(stream, index) == in_order[index]
        assert taken(EpochStream(one_length(), 5, seed=3), index) == in_order[index]
    assert stream.mixed_batch(7).labels.flatten().tolist() == in_order[7]
    other = EpochStream(one_length(), 5, seed=4)
    assert [taken(other, index) for index in range(20)] != in_order


def test_labels_of_an_epoch_are_cut_to_its_length() -> None:
    two = labelled(lengths=torch.full((COUNT,), 2))
    assert two.labels.shape == (COUNT, 3)
    assert EpochStream(two, 4, seed=0).batch(0).labels.shape == (4, 2)


def test_the_mean_image_of_an_epoch_is_that_of_all_images() -> None:
    count = 1500  # more than are added up at once
    images = torch.randint(256, (count, 1, 2, 3), dtype=torch.uint8)
    ones = torch.ones(count, dtype=torch.int64)
    mean = EpochStream(LabelledImages(images, ones[:, None], ones), 4, seed=0).mean_image()
    torch.testing.assert_close(mean, (images.double().mean(0) / 255).float(), atol=0, rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "batch_size", "seed", "message"),
    [
        (labelled(), 4, 0, r"an epoch takes images of one length"),
        (one_length(), 0, 0, r"batch size must be at least 1, got 0"),
        (one_length(), 4, -1, r"seed must be at least 0, got -1"),
    ],
)
def test_an_epoch_that_cannot_be_is_refused(images: LabelledImages, batch_size: int, seed: int, message: str) -> None:
    with pytest.raises(FastdrawError, match=message):
        EpochStream(images, batch_size, seed)
