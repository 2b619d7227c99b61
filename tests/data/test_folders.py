"""A folder of images: which of its files are read, in which order, and which of them are held out."""

import os
from pathlib import Path

import pytest
from PIL import Image

from fastdraw.data.folders import image_files, load_image_folder, read_images
from fastdraw.data.labelled import LabelledImages
from fastdraw.errors import FastdrawError
from tests.data.photos import pattern, shade, write_photo


def numbers(images: LabelledImages) -> list[int]:
    """The numbers of the shades that the images have."""
    shades = {shade(number): number for number in range(30)}
    assert images.images.flatten(2).amax(2).equal(images.images.flatten(2).amin(2))
    return [shades[tuple(colour)] for colour in images.images[:, :, 0, 0].tolist()]


def load(root: Path, split: str) -> list[int]:
    return numbers(load_image_folder(root, split, (4, 6)))


def test_the_first_of_every_ten_images_is_held_out(tmp_path: Path) -> None:
    for number in range(25):
        write_photo(tmp_path / f"{number:02}.png", number)

    assert load(tmp_path, "test") == [0, 10, 20]
    assert load(tmp_path, "train") == [number for number in range(25) if number % 10]


def test_two_images_are_enough(tmp_path: Path) -> None:
    for number in range(2):
        write_photo(tmp_path / f"{number}.png", number)

    assert (load(tmp_path, "test"), load(tmp_path, "train")) == ([0], [1])


def test_sub_folders_are_read_and_files_sorted_by_name(tmp_path: Path) -> None:
    names = ["a/b/1.png", "a/b/2.JPG", "a/c.jpeg", "b.webp", "c/0.BMP", "c/d e/ü.Png"]
    for number, name in reversed(list(enumerate(names))):
        write_photo(tmp_path / name, number)
    for name in ("b.txt", "c.npy", ".hidden.png", "._b.webp", ".git/1.png", "a/__MACOSX/._1.png", "png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("no image")
    (tmp_path / "folder.png").mkdir()
    images = load_image_folder(tmp_path, "train", (4, 6)), load_image_folder(tmp_path, "test", (4, 6))

    # JPEG and WebP change a shade a little.
    found = [images[1].images[0], *images[0].images]
    assert len(found) == len(names)
    for number, image in enumerate(found):
        assert (image[:, 0, 0].int() - image.new_tensor(shade(number)).int()).abs().max() <= 4


def test_folders_train_and_test_are_the_splits(tmp_path: Path) -> None:
    for number in range(12):
        write_photo(tmp_path / "train" / "some" / f"{number:02}.png", number)
    write_photo(tmp_path / "test" / "0.png", 20)
    write_photo(tmp_path / "other.png", 21)

    assert load(tmp_path, "train") == list(range(12))
    assert load(tmp_path, "test") == [20]


def test_a_folder_of_one_split_alone_is_as_any_other(tmp_path: Path) -> None:
    for number in range(3):
        write_photo(tmp_path / "train" / f"{number}.png", number)

    assert (load(tmp_path, "test"), load(tmp_path, "train")) == ([0], [1, 2])


def test_images_come_in_the_size_and_the_channels_that_are_asked_for(tmp_path: Path) -> None:
    for number in range(3):
        write_photo(tmp_path / f"{number}.png", number, (20, 30))

    assert load_image_folder(tmp_path, "train", (5, 7)).images.shape == (2, 3, 5, 7)
    grey = load_image_folder(tmp_path, "train", (7, 5), channels=1)
    assert grey.images.shape == (2, 1, 7, 5)
    luma = [round(sum(w * c for w, c in zip((0.299, 0.587, 0.114), shade(n), strict=True))) for n in (1, 2)]
    assert abs(grey.images[:, 0, 0, 0].int() - grey.lengths.new_tensor(luma)).max() <= 1


def make_single(root: Path) -> None:
    write_photo(root / "1.png")


def make_pair(root: Path) -> None:
    write_photo(root / "train" / "1.png")
    (root / "test").mkdir()


def make_file(root: Path) -> None:
    root.rmdir()
    root.write_text("a file")


@pytest.mark.parametrize(
    ("make", "split", "message"),
    [
        (Path.rmdir, "train", "images is no folder: give a folder of images as --root DIR"),
        (make_file, "train", "images is no folder: give a folder of images as --root DIR"),
        (Path.exists, "train", "images holds no image: expected files whose names end in .png, .jpg"),
        (make_single, "train", "images holds one image: at least 2 are needed, one of them to test on"),
        (make_pair, "test", "test holds no image: expected"),
        (make_single, "valid", 'unknown split \'valid\': expected "train" or "test"'),
    ],
    ids=["missing", "file", "empty", "single", "pair", "split"],
)
def test_a_folder_that_will_not_do_is_refused(tmp_path: Path, make, split: str, message: str) -> None:
    root = tmp_path / "images"
    root.mkdir()
    make(root)

    with pytest.raises(FastdrawError, match=message) as caught:
        load_image_folder(root, split, (4, 6))

    assert "\n" not in str(caught.value)


def test_a_sub_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_photo(tmp_path / "a" / "1.png")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # the superuser may read every folder

    with pytest.raises(FastdrawError, match="a cannot be read: Permission denied"):
        load_image_folder(tmp_path, "train", (4, 6))


def test_named_files_keep_their_order_and_a_folder_stands_for_its_images(tmp_path: Path) -> None:
    for number, name in enumerate(("z.png", "a/2.png", "a/1.png", "scan.data")):
        write_photo(tmp_path / "of.png", number)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / "of.png").rename(tmp_path / name)
    files = image_files([tmp_path / "z.png", tmp_path / "a", tmp_path / "scan.data"])

    assert [str(path.relative_to(tmp_path)) for path in files] == ["z.png", "a/1.png", "a/2.png", "scan.data"]
    images = read_images(files, (4, 6), 3)
    assert images[:, :, 0, 0].tolist() == [list(shade(number)) for number in (0, 2, 1, 3)]
    assert images.amax((2, 3)).equal(images.amin((2, 3)))


def test_a_file_read_by_its_name_is_what_it_is_in_a_folder(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(pattern(30, 20, number)).save(tmp_path / f"{number}.png")

    for channels in (1, 3):
        expected = load_image_folder(tmp_path, "test", (9, 7), channels).images
        assert read_images([tmp_path / "0.png"], (9, 7), channels).equal(expected)


def test_a_named_image_that_is_not_there_or_not_whole_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("none.png", "pipe.png"):
        with pytest.raises(FastdrawError, match=f"{name} is missing, or is no file: expected an image, or a folder"):
            image_files([tmp_path / name])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FastdrawError, match="empty holds no image"):
        image_files([tmp_path / "empty"])
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(FastdrawError, match=r"text.png is no image in one of PNG, JPEG"):
        read_images(image_files([tmp_path / "text.png"]), (4, 6), 1)
