"""Sources: what a run is trained on and tested on, for each kind of data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastdraw.data import load_faces, load_mnist_images
from fastdraw.data.captions import decode
from fastdraw.data.mnist import RAW
from fastdraw.errors import FastdrawError
from fastdraw.training import Settings, held_out_at, held_out_images, held_out_source
from fastdraw.training.sources import training_source
from tests.data.photos import shade, write_faces, write_photo
from tests.data.svhn import write_svhn
from tests.data.test_mnist import idx
from tests.training.tiny import tiny

SQUARE = {"model__height": 28, "model__width": 28, "model__labels": "none", "data__source": "binarised"}
DIGITS = SQUARE | {"data__source": "digits"}
CAPTIONS = {
    "model__height": 60, "model__width": 60, "model__labels": "words", "model__symbols": 22, "data__source": "captions",
}  # fmt: skip


def numbers(digits: str, length: int, count: int) -> list[list[tuple[int, ...]]]:
    """Rows of house numbers of these digits, in boxes side by side."""
    return [
        [(int(digits[(place + number) % len(digits)]), 15 * place, 10, 12, 30) for place in range(length)]
        for number in range(count)
    ]


@pytest.fixture
def svhn(tmp_path: Path) -> Path:
    """Train numbers of the digits 1 to 4, and test numbers of 5 to 8: five of one digit, and three of two."""
    write_svhn(tmp_path, "train", numbers("1234", 1, 6) + numbers("1234", 2, 6))
    write_svhn(tmp_path, "test", numbers("5678", 1, 5) + numbers("5678", 2, 3))
    return tmp_path


def house_numbers(root: Path | None, **changes: Any) -> Settings:
    return tiny(data__source="svhn", data__root=root, **changes)


def digits_of(batch) -> set[int]:
    return {digit for row, length in zip(batch.labels.tolist(), batch.lengths, strict=True) for digit in row[:length]}


def test_svhn_is_trained_on_train_and_tested_on_test_images(svhn: Path) -> None:
    settings = house_numbers(svhn, batch_size=40)
    assert digits_of(training_source(settings).mixed_batch(0)) == {1, 2, 3, 4}
    assert digits_of(held_out_source(settings, 40).mixed_batch(0)) == {5, 6, 7, 8}
    assert digits_of(held_out_images(settings, 1, 40)) == {5, 6, 7, 8}


def test_svhn_is_laid_out_and_coloured_as_the_settings_say(svhn: Path) -> None:
    colour = house_numbers(svhn, data__channels=3, model__channels=3, data__align="slots")
    image = held_out_images(colour, 2, 1).image
    assert image.shape == (1, 3, 32, 64)
    assert not image[..., :32].any()  # slots without a digit are black
    assert held_out_images(house_numbers(svhn), 2, 1).image[..., :32].any()


def test_every_held_out_image_of_svhn_comes_once(svhn: Path) -> None:
    settings = house_numbers(svhn)
    assert [len(held_out_images(settings, 1, count).labels) for count in (2, 5, 40)] == [2, 5, 5]
    image, labels, lengths = held_out_images(settings, 2, 40)
    assert labels.tolist() == [[5, 6], [6, 7], [7, 8]]
    assert lengths.tolist() == [2, 2, 2]
    assert 0 < image.max() <= 1
    with pytest.raises(FastdrawError, match=f"no test image under {svhn} has 3 digits"):
        held_out_images(settings, 3, 40)


def test_svhn_needs_a_folder() -> None:
    with pytest.raises(FastdrawError, match=r"does not come with fastdraw: give the folder .* as --root DIR"):
        training_source(house_numbers(None))


def test_held_out_images_of_mnist_are_as_many_as_asked_for_and_always_the_same() -> None:
    first, again = (held_out_images(tiny(seed=seed), 3, 7) for seed in (0, 1))
    assert first.labels.shape == (7, 3)
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


def test_every_held_out_image_of_binarised_mnist_comes_once_and_always_the_same() -> None:
    settings, digits = tiny(**SQUARE), load_mnist_images(None, "test")
    image, labels, lengths = held_out_images(settings, 1, 50)
    assert set(image.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(labels, digits.labels[:50])
    assert lengths.tolist() == [1] * 50
    grey = digits.images[:50] / 255
    assert not image[grey == 0].any()
    assert image[grey == 1].all()
    assert torch.equal(held_out_images(settings, 1, 50).image, image)
    assert len(held_out_images(settings, 1, 10_000).image) == 2000


def test_binarised_mnist_is_of_black_and_white_pixels_of_its_split() -> None:
    settings = tiny(**SQUARE, batch_size=50)
    for source, split in ((training_source(settings), "train"), (held_out_source(settings, 50), "test")):
        image, _, lengths = source.batch(0)
        assert set(image.unique().tolist()) == {0.0, 1.0}
        assert lengths.tolist() == [1] * 50
        expected = load_mnist_images(None, split).images.double().mean(0) / 255
        torch.testing.assert_close(source.mean_image().double(), expected, atol=1e-6, rtol=0)


def test_captions_never_say_in_training_or_test_what_is_held_out() -> None:
    settings = tiny(**CAPTIONS, batch_size=100)
    train, test = training_source(settings).batch(0), held_out_source(settings, 100).batch(0)
    for batch in (train, test):
        assert batch.image.shape == (100, 1, 60, 60)
        assert not any("digit 1 is at the top left" in decode(labels) for labels in batch.labels)
    assert not torch.equal(train.labels, test.labels) or not torch.equal(train.image, test.image)


def test_digits_that_are_left_out_are_in_no_batch_and_all_others_are() -> None:
    settings = tiny(**DIGITS, data__leave_out=(1, 7), batch_size=100)
    for source in (training_source(settings), held_out_source(settings, 100)):
        labels = torch.cat([source.batch(index).labels for index in range(50)])
        assert set(labels.unique().tolist()) == set(range(10)) - {1, 7}
    labels = load_mnist_images(None, "test").labels
    assert len(held_out_images(settings, 1, 10_000).image) == int(((labels != 1) & (labels != 7)).sum())


def test_an_epoch_is_of_the_digits_that_are_left() -> None:
    labels = load_mnist_images(None, "train").labels.flatten()
    left = labels[labels > 2].sort().values
    settings = tiny(**DIGITS, data__leave_out=(0, 1, 2), batch_size=len(left))
    source = training_source(settings)
    for epoch in range(2):
        assert torch.equal(source.batch(epoch).labels.flatten().sort().values, left)


def test_images_of_left_out_digits_are_those_of_the_others_in_order() -> None:
    settings = tiny(**DIGITS, data__leave_out=(4,))
    digits = load_mnist_images(None, "test")
    found = held_out_images(settings, 1, 30)
    expected = (digits.labels[:, 0] != 4).nonzero().flatten()[:30]
    assert torch.equal(found.image, digits.images[expected] / 255)
    assert torch.equal(found.labels, digits.labels[expected])


def test_data_of_left_out_digits_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / RAW).mkdir(parents=True)
    (tmp_path / RAW / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((5, 28, 28), np.uint8)))
    (tmp_path / RAW / "train-labels-idx1-ubyte").write_bytes(idx(np.full(5, 3, np.uint8)))
    settings = tiny(**DIGITS, data__root=tmp_path, data__leave_out=(3,))
    with pytest.raises(FastdrawError, match=r"no train digit is left: data.leave_out \(3,\) leaves out all there are"):
        training_source(settings)


def pictures(source: str, root: Path | None, **changes: Any) -> Settings:
    colour = {"data__channels": 3, "model__channels": 3, "model__labels": "none", "model__height": 6, "model__width": 9}
    return tiny(**(colour | {"data__source": source, "data__root": root, **changes}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Test images of the shades 0 and 10, and train images of the others up to 19."""
    for number in range(20):
        write_photo(tmp_path / "images" / f"{number:02}.png", number)
    return tmp_path / "images"


def shades_of(image: torch.Tensor) -> list[int]:
    shades = {shade(number): number for number in range(20)}
    return [shades[tuple(colour)] for colour in (255 * image[:, :, 0, 0]).round().int().tolist()]


def test_a_folder_is_trained_on_its_train_and_tested_on_its_test_images(folder: Path) -> None:
    settings = pictures("folder", folder, batch_size=18)
    source = training_source(settings)
    assert source.batch(0).image.shape == (18, 3, 6, 9)
    for epoch in range(2):
        assert sorted(shades_of(source.batch(epoch).image)) == [number for number in range(20) if number % 10]
    assert sorted(shades_of(held_out_source(settings, 2).batch(0).image)) == [0, 10]
    batch = source.batch(0)
    assert (batch.labels.tolist(), batch.lengths.tolist()) == ([[0]] * 18, [1] * 18)


def test_images_of_a_folder_come_in_the_size_and_the_channels_of_the_model(folder: Path) -> None:
    grey = pictures("folder", folder, data__channels=1, model__channels=1, model__height=5, model__width=4)
    assert training_source(grey).batch(0).image.shape == (4, 1, 5, 4)
    assert held_out_images(grey, 1, 1).image.shape == (1, 1, 5, 4)


def test_every_held_out_image_of_a_folder_comes_once_in_any_order(tmp_path: Path) -> None:
    write_photo(tmp_path / "train" / "0.png")
    for number in range(20):
        write_photo(tmp_path / "test" / f"{number:02}.png", number)
    settings = pictures("folder", tmp_path)
    some = shades_of(held_out_images(settings, 1, 7).image)
    assert len(set(some)) == 7
    assert some != list(range(7))
    assert sorted(shades_of(held_out_images(settings, 1, 500).image)) == list(range(20))
    assert shades_of(held_out_images(settings, 1, 7).image) == some


def test_faces_are_those_of_celebas_splits(tmp_path: Path) -> None:
    write_faces(tmp_path / "img_align_celeba", [1, 2, 3, 162_771, 182_638])
    settings = pictures("celeba", tmp_path, batch_size=3)
    train, test = training_source(settings).batch(0).image, held_out_images(settings, 1, 100).image
    assert (train.shape, test.shape) == ((3, 3, 6, 9), (1, 3, 6, 9))
    expected = load_faces(tmp_path, "test", (6, 9)).images / 255
    assert torch.equal(test, expected)
    assert torch.equal(held_out_source(settings, 1).batch(5).image, expected)


def test_the_data_of_settings_may_be_at_another_place(folder: Path) -> None:
    settings = pictures("folder", folder.parent / "nowhere")
    with pytest.raises(FastdrawError, match="nowhere is no folder"):
        held_out_source(settings, 2)
    assert held_out_source(settings.at(folder), 2).batch(0).image.shape == (2, 3, 6, 9)
    assert settings.at(None) == settings


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("celeba", r"data.source celeba needs a folder: give the one that holds img_align_celeba/ as --root DIR"),
        ("folder", r"data.source folder needs a folder: give the one that holds the images as --root DIR"),
    ],
)
def test_pictures_need_a_folder(source: str, message: str) -> None:
    settings = pictures(source, None)
    for opened in (training_source, lambda settings: held_out_images(settings, 1, 2)):
        with pytest.raises(FastdrawError, match=message):
            opened(settings)


@pytest.mark.parametrize(
    ("changes", "length"),
    [({}, 2), (CAPTIONS, 12), (DIGITS, 1), (SQUARE, 1)],
    ids=["mnist", "captions", "digits", "binarised"],
)
def test_a_test_image_is_the_same_whichever_are_asked_for_beside_it(changes: dict[str, Any], length: int) -> None:
    settings = tiny(**changes)
    many = held_out_at(settings, length, [4, 0, 4, 7])
    assert many.labels.shape == (4, length)
    assert many.lengths.tolist() == 4 * [length]
    assert len({image.numpy().tobytes() for image in many.image}) == 3
    for place, number in enumerate((4, 0, 4, 7)):
        alone = held_out_at(settings, length, [number])
        for part, of_many in zip(alone, many, strict=True):
            assert torch.equal(part[0], of_many[place])
    for part, of_many in zip(held_out_at(settings, length, 8), many, strict=True):
        assert torch.equal(part[[4, 0, 4, 7]], of_many)


def test_a_test_image_by_number_is_among_those_of_its_split(svhn: Path, folder: Path) -> None:
    settings = house_numbers(svhn, data__lengths=(1, 1, 0, 0))
    assert torch.equal(held_out_at(settings, 1, [4]).image, held_out_images(settings, 1, 5).image[4:])
    with pytest.raises(FastdrawError, match="no test image 5: there are 5 of this kind, from 0"):
        held_out_at(settings, 1, [5])
    with pytest.raises(FastdrawError, match="no test image 3: there are 3 of this kind, from 0"):
        held_out_at(settings, 2, [0, 3])
    of_folder = pictures("folder", folder)
    every = held_out_at(of_folder, 1, 100).image
    assert torch.equal(every, held_out_images(of_folder, 1, 100).image)
    assert torch.equal(held_out_at(of_folder, 1, [1, 0]).image, every[[1, 0]])
