"""MNIST files: whole ones are read, packed or not; broken ones are named in one line."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from fastdraw.data import load_cells
from fastdraw.data.cells import SAMPLE
from fastdraw.data.mnist import RAW, load_mnist, load_mnist_images
from fastdraw.errors import FastdrawError

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"

full_mnist = pytest.mark.skipif(
    "FASTDRAW_MNIST" not in os.environ, reason="FASTDRAW_MNIST names no folder with MNIST/raw/"
)


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(1, 256, (6, 28, 28), np.uint8)


@pytest.fixture
def labels():
    return np.arange(6, dtype=np.uint8)


@pytest.fixture
def root(tmp_path, images, labels):
    """A root folder with six digits, unpacked."""
    (tmp_path / RAW).mkdir(parents=True)
    (tmp_path / RAW / IMAGES).write_bytes(idx(images))
    (tmp_path / RAW / LABELS).write_bytes(idx(labels))
    return tmp_path


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
def test_load_mnist_reads_what_was_written(root, images, labels, packed):
    if packed:
        for name in (IMAGES, LABELS):
            path = root / RAW / name
            path.with_name(f"{name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()

    read_images, read_labels = load_mnist(root, "test")

    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, labels)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: (raw / IMAGES).unlink(), rf"{IMAGES} is missing.*--root DIR, or add --download"),
        (lambda raw: (raw / LABELS).unlink(), rf"{LABELS} is missing"),
        (lambda raw: (raw / IMAGES).write_bytes(b""), rf"{IMAGES} is empty or truncated \(0 bytes\): delete it"),
        (lambda raw: os.truncate(raw / IMAGES, 10), rf"{IMAGES} is empty or truncated \(10 bytes\)"),
        (lambda raw: os.truncate(raw / IMAGES, 1000), rf"{IMAGES} holds 984 bytes .* where 4704 were expected"),
        (
            lambda raw: (raw / LABELS).write_bytes((raw / IMAGES).read_bytes()),
            rf"{LABELS} is not an idx1 file .*00000803",
        ),
        (lambda raw: (raw / LABELS).write_bytes(b"<html>not found</html>"), rf"{LABELS} is not an idx1 file"),
        (lambda raw: (raw / LABELS).write_bytes(idx(np.zeros(5, np.uint8))), r"holds 6 images but .* 5 labels"),
        (lambda raw: (raw / LABELS).write_bytes(idx(np.full(6, 26, np.uint8))), r"holds the label 26: expected digits"),
        (lambda raw: (raw / IMAGES).write_bytes(idx(np.zeros((0, 28, 28), np.uint8))), r"holds no data"),
        (lambda raw: (raw / IMAGES).rename(raw / f"{IMAGES}.gz"), rf"{IMAGES}.gz is not a whole gzip file"),
    ],
    ids=[
        "no-images",
        "no-labels",
        "empty",
        "cut-in-header",
        "cut-in-data",
        "images-as-labels",
        "web-page",
        "fewer-labels",
        "letters",
        "no-digits",
        "not-gzip",
    ],
)
def test_load_mnist_names_the_broken_file(root, damage, message):
    damage(root / RAW)

    with pytest.raises(FastdrawError, match=message) as caught:
        load_mnist(root, "test")

    assert "\n" not in str(caught.value)


def test_load_mnist_rejects_truncated_gzip(root):
    path = root / RAW / IMAGES
    packed = gzip.compress(path.read_bytes())
    path.with_name(f"{IMAGES}.gz").write_bytes(packed[:-100])
    path.unlink()

    with pytest.raises(FastdrawError, match=rf"{IMAGES}.gz is not a whole gzip file"):
        load_mnist(root, "test")


def test_load_mnist_rejects_split(root):
    with pytest.raises(FastdrawError, match='unknown split \'valid\': expected "train" or "test"'):
        load_mnist(root, "valid")


def test_load_cells_rejects_image_without_ink(root, images):
    images[2] = 0
    (root / RAW / IMAGES).write_bytes(idx(images))

    with pytest.raises(FastdrawError, match=r"test image 2 under .* has no ink: is this MNIST\?"):
        load_cells(root, "test")


@pytest.mark.parametrize("load", [load_cells, load_mnist_images])
def test_download_needs_a_root(load):
    with pytest.raises(FastdrawError, match="--download needs a folder"):
        load(None, "test", download=True)


def test_images_have_their_digit_as_their_one_label(root, images, labels):
    read = load_mnist_images(root, "test")

    np.testing.assert_array_equal(read.images[:, 0], images)
    np.testing.assert_array_equal(read.labels[:, 0], labels)
    assert read.lengths.tolist() == [1] * 6
    read.images[0] = 7  # they are nobody else's
    np.testing.assert_array_equal(load_mnist_images(root, "test").images[:, 0], images)


def test_without_a_root_images_are_the_packages_sample():
    assert load_mnist_images(None, "test").images.shape == (2000, 1, 28, 28)


def test_download_is_not_tried_where_the_files_are(root, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.MNIST", lambda *_, **__: pytest.fail("a download was tried"))

    assert len(load_cells(root, "test", download=True)) == 6


def test_failing_download_is_one_line(tmp_path, monkeypatch):
    def fail(root, download):
        raise RuntimeError("Error downloading\n train-images-idx3-ubyte.gz")

    monkeypatch.setattr("torchvision.datasets.MNIST", fail)

    with pytest.raises(FastdrawError, match=r"could not be fetched into .*Error downloading train-images") as caught:
        load_cells(tmp_path, "train", download=True)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("split", "per_class"), [("train", 1000), ("test", 200)])
def test_sample_holds_every_class_equally(split, per_class):
    images, labels = load_mnist(SAMPLE, split)

    assert images.shape == (10 * per_class, 28, 28)
    np.testing.assert_array_equal(np.bincount(labels), [per_class] * 10)


def test_sample_is_at_most_two_megabytes():
    assert sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file()) <= 2_000_000


@full_mnist
@pytest.mark.parametrize("split", ["train", "test"])
def test_sample_is_part_of_mnist(split):
    mnist = {image.tobytes() + bytes([label]) for image, label in zip(*load_mnist(mnist_root(), split), strict=True)}

    sample = [image.tobytes() + bytes([label]) for image, label in zip(*load_mnist(SAMPLE, split), strict=True)]

    assert mnist.issuperset(sample)
    assert len(set(sample)) == len(sample)


@full_mnist
def test_load_cells_reads_all_of_mnist():
    assert len(load_cells(mnist_root(), "train")) == 60_000
    assert len(load_cells(mnist_root(), "test")) == 10_000


def mnist_root():
    return Path(os.environ["FASTDRAW_MNIST"])
