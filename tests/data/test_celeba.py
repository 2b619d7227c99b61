"""CelebA as a data set: splits by number, the central 128 x 128 pixels, both layouts, and no download by surprise."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from fastdraw.data.celeba import load_faces
from fastdraw.errors import FastdrawError
from tests.data.photos import pattern, write_faces

NUMBERS = [1, 3, 162_770, 162_771, 182_637, 182_638, 202_599]
SPLITS = {"train": [1, 3, 162_770], "valid": [162_771, 182_637], "test": [182_638, 202_599]}

real = pytest.mark.skipif("FASTDRAW_FACES" not in os.environ, reason="FASTDRAW_FACES names no folder of CelebA")


def central(number: int) -> np.ndarray:
    return pattern(218, 178, number)[45:173, 25:153].astype(int)


@pytest.mark.parametrize("layout", ["img_align_celeba", "celeba/img_align_celeba"])
def test_splits_are_told_by_the_numbers_of_the_files(tmp_path: Path, layout: str) -> None:
    folder = write_faces(tmp_path / layout, NUMBERS)
    for name in ("000000.jpg", "202600.jpg", "1.jpg", "000002.png", "a00002.jpg", "000002.jpg.part"):
        (folder / name).write_text("no face")

    for split, numbers in SPLITS.items():
        faces = load_faces(tmp_path, split)
        assert faces.images.shape == (len(numbers), 3, 128, 128)
        assert faces.labels.tolist() == [[0]] * len(numbers)
        for image, number in zip(faces.images, numbers, strict=True):
            assert abs(image.permute(1, 2, 0).numpy() - central(number)).mean() < 3


def test_the_central_pixels_are_taken_as_they_are(tmp_path: Path) -> None:
    folder = write_faces(tmp_path / "img_align_celeba", [])
    Image.fromarray(pattern(218, 178)).save(folder / "000001.jpg", "PNG")

    assert (load_faces(tmp_path, "train").images[0].permute(1, 2, 0).numpy() == central(0)).all()


def test_another_size_is_that_of_the_central_pixels_reduced(tmp_path: Path) -> None:
    write_faces(tmp_path / "img_align_celeba", [7])
    reduced = np.asarray(Image.fromarray(central(7).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC))

    image = load_faces(tmp_path, "train", (32, 32)).images[0]
    assert abs(image.permute(1, 2, 0).numpy() - reduced.astype(int)).mean() < 3
    wide = load_faces(tmp_path, "train", (16, 32)).images[0]
    assert (wide.int() - image[:, 8:24].int()).abs().max() <= 1
    grey = load_faces(tmp_path, "train", (32, 32), channels=1).images[0]
    assert abs(grey[0].numpy() - reduced @ (0.299, 0.587, 0.114)).mean() < 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "extra"}, "unknown split 'extra': expected one of train, valid, test"),
        ({"split": "valid"}, "img_align_celeba holds no image of CelebA's valid split, 162771.jpg to 182637.jpg"),
        ({"split": "train", "size": (0, 1)}, "size of images must be at least 1 x 1, got 0 x 1"),
        ({"split": "train", "channels": 4}, "unknown channels 4"),
    ],
)
def test_what_cannot_be_had_is_refused(tmp_path: Path, arguments, message: str) -> None:
    write_faces(tmp_path / "img_align_celeba", [1])

    with pytest.raises(FastdrawError, match=message):
        load_faces(tmp_path, **arguments)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    folder = write_faces(tmp_path / "img_align_celeba", [1, 2])
    Image.new("RGB", (64, 64)).save(folder / "000002.jpg")

    message = r"000002.jpg is 64 x 64 pixels where CelebA's aligned images are 178 x 218: .* the source \"folder\""
    with pytest.raises(FastdrawError, match=message):
        load_faces(tmp_path, "train")


def test_nothing_is_fetched_unless_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets, "CelebA", lambda *_, **__: pytest.fail("was fetched"))

    with pytest.raises(FastdrawError, match=r"missing, and so is .*/celeba/img_align_celeba: .* or add --download"):
        load_faces(tmp_path, "train")
    write_faces(tmp_path / "img_align_celeba", [1])
    assert len(load_faces(tmp_path, "train", (8, 8), download=True)) == 1


def test_torchvision_fetches_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, download: bool) -> None:
        assert download
        write_faces(Path(root) / "celeba" / "img_align_celeba", [1, 2])

    monkeypatch.setattr(torchvision.datasets, "CelebA", fetch)

    assert len(load_faces(tmp_path, "train", (8, 8), download=True)) == 2


@pytest.mark.parametrize(
    "error", [RuntimeError("no\nquota"), OSError("no quota"), type("Own", (Exception,), {})("no quota")]
)
def test_what_cannot_be_fetched_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fetch(root: str, download: bool) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets, "CelebA", fetch)

    with pytest.raises(FastdrawError, match=r"^CelebA could not be fetched into .*celeba \(no quota\): check [^\n]*$"):
        load_faces(tmp_path, "train", download=True)


@real
@pytest.mark.parametrize("split", ["train", "test"])
def test_real_faces_are_all_read(split: str) -> None:
    folder = Path(os.environ["FASTDRAW_FACES"])
    faces = load_faces(folder, split)
    middle = faces.images[:, :, 32:96, 32:96].double().mean((0, 2, 3))

    assert faces.images.shape[1:] == (3, 128, 128)
    assert faces.images.flatten(1).float().std(1).min() > 1
    # Skin is more red than green, and more green than blue.
    assert torch.equal(middle.sort(descending=True).values, middle)
