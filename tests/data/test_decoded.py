"""Images of files: upright, cropped, resized, in the right colours; broken ones named; the cache trusted where due."""

import fcntl
import os
import random
import re
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fastdraw.data import decoded
from fastdraw.data.decoded import load_decoded
from fastdraw.errors import FastdrawError
from tests.data.photos import pattern, shade, write_photo

SIZE = (8, 12)
CACHE = ".fastdraw-photos-8x12-3.images"
UPRIGHT = pattern(*SIZE)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(5):
        write_photo(tmp_path / "photos" / f"{number}.png", number)
    return tmp_path / "photos"


def load(root: Path, size: tuple[int, int] = SIZE, channels: int = 3) -> torch.Tensor:
    files = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    return load_decoded(root, "photos", files, size, channels).images


def load_one(path: Path, size: tuple[int, int] = SIZE, channels: int = 3) -> np.ndarray:
    """The image as (H, W, C)."""
    return load_decoded(path.parent, "one", [path], size, channels).images[0].permute(1, 2, 0).numpy()


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoded, "decode_image", lambda *_, **__: pytest.fail("was read anew"))


def in_folder(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_images_come_in_the_order_of_their_files_whatever_the_threads(tmp_path: Path) -> None:
    count, before = 200, torch.get_num_threads()
    files = [tmp_path / f"{number}.bmp" for number in range(count)]
    for number, path in enumerate(files):
        write_photo(path, number, (1 + 20 * (number % 7), 9))
    torch.set_num_threads(3)
    try:
        data = load_decoded(tmp_path, "many", files, (2, 1), 3)
    finally:
        torch.set_num_threads(before)

    expected = torch.tensor([shade(number) for number in range(count)], dtype=torch.uint8)
    assert torch.equal(data.images, expected[:, :, None, None].expand(-1, -1, 2, 1))
    assert data.labels.tolist() == [[0]] * count
    assert data.lengths.tolist() == [1] * count


def test_an_image_of_the_right_size_keeps_its_pixels(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")

    assert (load_one(tmp_path / "a.png") == UPRIGHT).all()


def test_grey_is_the_luma_of_colour(tmp_path: Path) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
    luma = UPRIGHT @ (0.299, 0.587, 0.114)

    assert abs(load_one(tmp_path / "a.png", channels=1)[..., 0] - luma).max() <= 1


@pytest.mark.parametrize(("axis", "size"), [(1, (10, 10)), (0, (10, 10)), (1, (40, 20)), (0, (5, 30))])
def test_the_largest_part_of_the_shape_in_the_centre_is_taken(tmp_path: Path, axis: int, size: tuple[int, int]) -> None:
    height, width = size
    margin = np.zeros((height, 3, 3) if axis else (3, width, 3), np.uint8)
    part = pattern(height, width)
    Image.fromarray(np.concatenate([margin, part, 255 - margin], axis)).save(tmp_path / "a.png")

    assert (load_one(tmp_path / "a.png", size) == part).all()


def test_what_is_reduced_is_antialiased(tmp_path: Path) -> None:
    board = 255 * (np.indices((64, 64)).sum(0) % 2).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")

    assert abs(load_one(tmp_path / "a.png", (8, 8)).astype(int) - 127.5).max() < 3


def test_a_jpeg_much_larger_than_asked_for_looks_as_if_read_whole(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    large = Image.fromarray(blocks).resize((320, 320), Image.Resampling.NEAREST)
    large.save(tmp_path / "a.png")
    large.save(tmp_path / "a.jpg", quality=95, subsampling=0)
    quick, whole = (load_one(tmp_path / name, (40, 40)).astype(int) for name in ("a.jpg", "a.png"))

    # Read at a quarter it is off by 3 on average, at an eighth by 21.
    assert abs(quick - whole).mean() < 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_an_image_is_turned_as_its_exif_says(tmp_path: Path, suffix: str) -> None:
    large = pattern(48, 72)
    expected = np.asarray(Image.fromarray(large).resize(SIZE[::-1], Image.Resampling.BICUBIC)).astype(int)
    flips = Image.Transpose
    # What a camera stored for EXIF's orientations 1 to 8, made from the upright image.
    stored = [
        None, flips.FLIP_LEFT_RIGHT, flips.ROTATE_180, flips.FLIP_TOP_BOTTOM,
        flips.TRANSPOSE, flips.ROTATE_90, flips.TRANSVERSE, flips.ROTATE_270,
    ]  # fmt: skip
    for orientation, flip in enumerate(stored, 1):
        photo, exif = Image.fromarray(large), Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        (photo if flip is None else photo.transpose(flip)).save(path, exif=exif, quality=95)
        assert abs(load_one(path) - expected).max() <= 16, orientation


def test_16_bits_of_grey_are_not_cut_off(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, SIZE[0] * SIZE[1]).astype(np.uint16).reshape(SIZE)
    Image.fromarray(levels).save(tmp_path / "a.png")

    assert (load_one(tmp_path / "a.png", channels=1)[..., 0] == levels >> 8).all()
    assert (load_one(tmp_path / "a.png") == (levels >> 8)[..., None]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    photo = Image.new("RGBA", (12, 8), (10, 20, 30, 0))
    photo.paste((200, 200, 200, 255), (0, 0, 6, 8))
    photo.convert(mode).save(tmp_path / "a.png")
    image = load_one(tmp_path / "a.png")

    assert (image[:, :6] == 200).all()
    assert (image[:, 6:] == 255).all()


@pytest.mark.parametrize(("mode", "suffix"), [("1", "png"), ("L", "webp"), ("P", "bmp"), ("CMYK", "jpg"), ("L", "jpg")])
def test_images_may_be_of_other_modes(tmp_path: Path, mode: str, suffix: str) -> None:
    photo = Image.new("L", (12, 8), 255)
    photo.paste(0, (0, 0, 6, 8))
    photo.convert("RGB").convert(mode).save(tmp_path / f"a.{suffix}")
    image = load_one(tmp_path / f"a.{suffix}").astype(int)

    assert abs(image[:, :5]).max() <= 8
    assert abs(image[:, 7:] - 255).max() <= 8


def truncate(path: Path) -> None:
    Image.fromarray(pattern(90, 90)).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def bomb(path: Path) -> None:
    # A header that tells of 2^30 pixels, with the right sum: length, IHDR, width, height, 5 bytes, CRC-32.
    data = bytearray(path.read_bytes())
    data[16:24] = 2 * (2**15).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


def dangle(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("a letter"), "3.png is no image in one of PNG, JPEG, WEBP, BMP: mend"),
        (lambda path: path.write_bytes(b""), "3.png is no image in one of PNG, JPEG, WEBP, BMP: mend"),
        (truncate, r"3.png is no whole image \(.*truncated.*\): mend it or take it away"),
        (bomb, r"3.png is no whole image \(.*exceeds limit"),
        (dangle, "3.png cannot be read: No such file"),
    ],
    ids=["text", "empty", "truncated", "bomb", "dangling"],
)
def test_a_broken_file_is_named_and_leaves_nothing(
    root: Path, user_cache: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(root / "3.png")
    before = in_folder(root)

    with pytest.raises(FastdrawError, match=message) as caught:
        load(root)

    assert "\n" not in str(caught.value)
    assert in_folder(root) == before
    assert in_folder(user_cache) == []


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_flipped_bytes_in_an_image_end_as_one_line_or_as_an_image(tmp_path: Path, suffix: str) -> None:
    path, rng, exif = tmp_path / f"a.{suffix}", random.Random(0), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(UPRIGHT).save(path, **({} if suffix == "bmp" else {"exif": exif}))
    whole = path.read_bytes()
    refused = []
    for _ in range(60):
        broken = bytearray(whole)
        for _ in range(rng.choice((1, 20))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        try:
            assert load_one(path).shape == (*SIZE, 3)
        except FastdrawError as error:
            refused.append(str(error))
    assert len(refused) > 5
    assert all(re.search(rf"a.{suffix} is no (whole image|image in one of)", message) for message in refused)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (0, 8)}, "the size of images must be at least 1 x 1, got 0 x 8"),
        ({"size": (8, -1)}, "got 8 x -1"),
        ({"channels": 2}, "unknown channels 2: expected one of 1, 3"),
    ],
)
def test_a_size_that_cannot_be_is_refused(root: Path, changes, message: str) -> None:
    with pytest.raises(FastdrawError, match=message):
        load(root, **changes)


def test_the_cache_saves_reading_anew_and_is_mapped_into_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root).clone()
    unread(monkeypatch)
    again = load(root)

    assert torch.equal(again, first)
    assert str(root / CACHE) in Path("/proc/self/maps").read_text()
    assert in_folder(root) == [CACHE, *(f"{number}.png" for number in range(5))]
    again.zero_()
    assert torch.equal(load(root), first)


def test_every_size_has_a_cache_of_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [(SIZE, 3), (SIZE, 1), ((12, 8), 3), ((4, 4), 3)]
    fresh = [load(root, *way) for way in ways]
    unread(monkeypatch)

    assert all(torch.equal(load(root, *way), images) for way, images in zip(ways, fresh, strict=True))


def rename(root: Path) -> None:
    # Of the same order, size and times.
    (root / "4.png").rename(root / "5.png")


def touch(root: Path) -> None:
    os.utime(root / "2.png", ns=(0, 0))


def change(root: Path) -> None:
    status = (root / "2.png").stat()
    write_photo(root / "2.png", 9, (20, 20))
    os.utime(root / "2.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (root / "2.png").stat().st_size != status.st_size


@pytest.mark.parametrize(
    "alter", [rename, touch, change, lambda root: write_photo(root / "9.png"), lambda root: (root / "0.png").unlink()]
)
def test_a_cache_of_other_files_is_made_anew(root: Path, alter: Callable[[Path], None]) -> None:
    load(root)
    alter(root)
    made = (root / CACHE).stat().st_ino
    images = load(root)

    assert (root / CACHE).stat().st_ino != made
    assert len(images) == len(in_folder(root)) - 1


def test_a_cache_of_another_version_is_made_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    monkeypatch.setattr(decoded, "VERSION", 2)
    made = (root / CACHE).stat().st_ino
    load(root)

    assert (root / CACHE).stat().st_ino != made


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"",
        lambda data: data[:-1] + b"?",
        lambda data: data[32:],
    ],
    ids=["short", "long", "empty", "key", "start"],
)
def test_a_cache_that_is_not_whole_is_made_anew(root: Path, damage: Callable[[bytes], bytes]) -> None:
    expected = load(root).clone()
    (root / CACHE).write_bytes(damage((root / CACHE).read_bytes()))

    assert torch.equal(load(root), expected)


def test_a_folder_marked_read_only_has_its_cache_with_the_user(
    root: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = in_folder(root)
    root.chmod(0o555)
    first = load(root)
    unread(monkeypatch)
    again = load(root)
    root.chmod(0o755)

    assert torch.equal(again, first)
    assert in_folder(root) == before
    assert len(in_folder(user_cache)) == 1


def test_no_cache_at_all_is_said_and_harms_nothing(
    root: Path, user_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load(root).clone()
    (root / CACHE).unlink()
    (root / CACHE).mkdir()
    user_cache.parent.mkdir()
    user_cache.write_text("no folder")

    assert torch.equal(load_decoded(root, "photos", sorted(root.glob("*.png")), SIZE, 3).images, expected)
    assert "can be written: the images take 0 MB of memory and are read anew next time" in capsys.readouterr().err


def test_a_user_without_a_home_has_the_cache_beside_the_data_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    first = load(root)
    assert (root / CACHE).is_file()
    (root / CACHE).unlink()
    root.chmod(0o555)
    again = load(root)
    root.chmod(0o755)
    assert torch.equal(again, first)
    assert f"nothing in {root} can be written: the images take" in capsys.readouterr().err


def test_a_disk_without_room_is_not_filled(
    root: Path, user_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Path] = []

    def usage(folder: Path) -> SimpleNamespace:
        asked.append(folder)
        return SimpleNamespace(free=5 * 3 * 8 * 12 - 1)

    monkeypatch.setattr(decoded.shutil, "disk_usage", usage)

    assert len(load(root)) == 5
    assert asked == [root, user_cache]
    assert "are read anew next time" in capsys.readouterr().err


def test_what_another_process_makes_is_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load(root).clone()
    unread(monkeypatch)
    (root / CACHE).rename(root.parent / "made")
    found: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: found.append(load(root)))
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        thread.start()
        told, deadline = "", time.monotonic() + 60
        while "note: waiting for another process" not in told and time.monotonic() < deadline:
            time.sleep(0.01)
            told += capsys.readouterr().err
        (root.parent / "made").rename(root / CACHE)
    finally:
        os.close(folder)
    thread.join(60)

    assert "note: waiting for another process" in told
    assert torch.equal(found[0], expected)
