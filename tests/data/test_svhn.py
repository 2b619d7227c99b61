"""SVHN as a data set: digits in order, long numbers left out, broken files named, a cache no more trusted than due."""

import os
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastdraw.data.svhn import load_svhn
from fastdraw.errors import FastdrawError
from tests.data.svhn import write_digit_struct, write_photo, write_svhn

# label, left, top, width, height; the second number's digits are not in order, the third reaches out of its image.
NUMBERS = [
    [(10, 30, 10, 15, 30)],
    [(7, 40, 10, 12, 30), (3, 20, 10, 12, 30)],
    [(5, -4, -3, 20, 40), (10, 20, 5, 14, 30), (2, 40, 5, 60, 90)],
    [(digit, 5 + 10 * digit, 20, 9, 20) for digit in (1, 2, 3, 4, 5)],
    [(9, 10, 5, 10, 20), (1, 20, 5, 10, 20), (1, 30, 5, 10, 20), (8, 40, 5, 10, 20)],
]
LABELS = [[0, 0, 0, 0], [3, 7, 0, 0], [5, 0, 2, 0], [9, 1, 1, 8]]
LENGTHS = [1, 2, 3, 4]

real = pytest.mark.skipif("FASTDRAW_SVHN" not in os.environ, reason="FASTDRAW_SVHN names no folder of SVHN")


@pytest.fixture
def root(tmp_path):
    write_svhn(tmp_path / "svhn", "train", NUMBERS)
    return tmp_path / "svhn"


def caches(folder):
    return sorted(path.name for path in folder.glob("*.npz")) if folder.exists() else []


def equal(first, second):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("images", "labels", "lengths"))


@pytest.mark.parametrize("align", ["right", "slots", "goodfellow"])
def test_digits_come_from_left_to_right(root, align):
    svhn = load_svhn(root, "train", align=align)

    assert svhn.images.shape == (4, 1, 32, 64)
    assert svhn.labels.tolist() == LABELS
    assert svhn.lengths.tolist() == LENGTHS


def test_every_digit_stands_where_its_label_says(root):
    svhn = load_svhn(root, "train", align="slots", channels=3)

    assert svhn.images.shape == (4, 3, 32, 64)
    for image, labels, length in zip(svhn.images, LABELS, LENGTHS, strict=True):
        for place, digit in enumerate(labels[:length]):
            colour = image[:, 16, 64 - 16 * (length - place) + 8]
            assert colour.tolist() == [20 * digit, 20 * digit, 255 - 20 * digit]


def test_grey_is_the_luma_of_colour(root):
    colour = load_svhn(root, "train", align="slots", channels=3).images.double()
    luma = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]

    assert (load_svhn(root, "train", align="slots").images[:, 0] - luma).abs().max() <= 1


def test_longer_numbers_are_left_out_and_counted(root, capsys):
    (root / "train" / "4.png").unlink()
    load_svhn(root, "train")

    assert capsys.readouterr().err.startswith(f"note: 1 of 5 numbers in {root / 'train'} have more than 4 digits")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "valid"}, "unknown split 'valid': expected one of train, test, extra"),
        ({"align": "left"}, "unknown align 'left': expected one of right, slots, goodfellow"),
        ({"channels": 2}, "unknown channels 2: expected one of 1, 3"),
        ({"split": "test"}, "digitStruct.mat is missing: give the folder that holds SVHN's test/ as --root DIR"),
    ],
)
def test_unknown_arguments_and_a_missing_split_are_named(root, arguments, message):
    with pytest.raises(FastdrawError, match=message):
        load_svhn(root, **{"split": "train", **arguments})


def truncate(folder):
    data = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(data[: len(data) // 2])


def bomb(folder):
    # A header that tells of 2^30 pixels, with the right sum: length, IHDR, width, height, 5 bytes, CRC-32.
    data = bytearray((folder / "2.png").read_bytes())
    data[16:24] = 2 * (2**15).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (folder / "2.png").write_bytes(data)


def smaller(folder):
    write_photo(folder / "2.png", [], (40, 40))


def rewrite(*entries):
    return lambda folder: write_digit_struct(folder / "digitStruct.mat", entries)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "2.png").unlink(), "2.png is missing, and digitStruct.mat names it: unpack"),
        (lambda folder: (folder / "2.png").write_bytes(b""), "2.png is not a whole PNG image .cannot identify"),
        (truncate, "2.png is not a whole PNG image .*truncated"),
        (bomb, "2.png is not a whole PNG image .*exceeds limit"),
        (smaller, r"2.png has a box \(left 40, .* outside its 40 x 40 pixels: are this image and"),
        (lambda folder: os.truncate(folder / "digitStruct.mat", 3000), "not a whole digitStruct.mat"),
        (rewrite(("1.png", 5 * [(1, 1, 1, 9, 9)])), "holds no number of 1 to 4 digits"),
        (rewrite(("1.png", [(11, 1, 1, 9, 9)])), "1.png has the label 11"),
    ],
    ids=["missing", "empty", "truncated", "bomb", "outside", "struct", "long", "label"],
)
def test_a_broken_file_is_named_and_leaves_no_cache(root, user_cache, damage, message):
    damage(root / "train")

    with pytest.raises(FastdrawError, match=message) as caught:
        load_svhn(root, "train")

    assert "\n" not in str(caught.value)
    assert caches(root) == caches(user_cache) == []


def test_flipped_bytes_in_an_image_end_as_one_line_or_as_an_image(root):
    path, rng = root / "train" / "3.png", random.Random(0)
    whole = path.read_bytes()
    refused = []
    for _ in range(60):
        broken = bytearray(whole)
        for _ in range(rng.choice((1, 20))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        for cache in root.glob(".*.npz"):
            cache.unlink()
        try:
            load_svhn(root, "train")
        except FastdrawError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all("3.png is not a whole PNG image" in message for message in refused)


def test_the_cache_saves_reading_anew(root, monkeypatch):
    first = load_svhn(root, "train")
    monkeypatch.setattr("fastdraw.data.svhn.read_digit_struct", lambda _: pytest.fail("was read anew"))

    assert caches(root) == [".fastdraw-svhn-train-right-1.npz"]
    assert equal(load_svhn(root, "train"), first)


def test_every_way_to_prepare_has_a_cache_of_its_own(root):
    ways = [("right", 1), ("right", 3), ("slots", 1), ("goodfellow", 1)]
    fresh = [load_svhn(root, "train", align=align, channels=channels) for align, channels in ways]
    again = [load_svhn(root, "train", align=align, channels=channels) for align, channels in ways]

    assert all(equal(one, other) for one, other in zip(fresh, again, strict=True))
    assert len(caches(root)) == 4


def test_a_cache_of_another_struct_is_made_anew(root):
    load_svhn(root, "train")
    write_digit_struct(root / "train" / "digitStruct.mat", [("1.png", NUMBERS[0])])

    assert load_svhn(root, "train").labels.tolist() == [[0, 0, 0, 0]]


def test_a_cache_of_another_version_is_made_anew(root, monkeypatch):
    load_svhn(root, "train")
    (root / "train" / "2.png").unlink()
    assert len(load_svhn(root, "train")) == 4
    monkeypatch.setattr("fastdraw.data.svhn.VERSION", 2)

    with pytest.raises(FastdrawError, match=r"2.png is missing"):
        load_svhn(root, "train")


def test_a_damaged_cache_is_made_anew(root):
    expected = load_svhn(root, "train")
    cache, rng = root / ".fastdraw-svhn-train-right-1.npz", random.Random(0)
    whole = cache.read_bytes()
    for case in range(60):
        broken = bytearray(whole)
        if case % 2:
            broken = broken[: rng.randrange(len(broken))]
        else:
            for _ in range(rng.choice((1, 30))):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
        cache.write_bytes(broken)
        assert equal(load_svhn(root, "train"), expected)


def test_a_cache_of_other_shapes_is_made_anew(root):
    expected = load_svhn(root, "train")
    cache = root / ".fastdraw-svhn-train-right-1.npz"
    with np.load(cache) as data:
        contents = dict(data)
    for name, value in (("images", contents["images"][:, :, :16]), ("labels", contents["labels"][:2])):
        np.savez(cache, **{**contents, name: value})
        assert equal(load_svhn(root, "train"), expected)


def test_a_folder_marked_read_only_has_its_cache_with_the_user(root, user_cache):
    root.chmod(0o555)
    load_svhn(root, "train")
    root.chmod(0o755)

    assert caches(root) == []
    assert len(caches(user_cache)) == 1


def test_a_folder_that_cannot_be_written_has_its_cache_with_the_user(root, user_cache, tmp_path, monkeypatch):
    # A folder in the cache's place stops the superuser too, whom rights do not.
    (root / ".fastdraw-svhn-train-right-1.npz").mkdir()
    first = load_svhn(root, "train")
    write_svhn(tmp_path / "other", "train", NUMBERS[:1])
    (tmp_path / "other" / ".fastdraw-svhn-train-right-1.npz").mkdir()
    other = load_svhn(tmp_path / "other", "train")
    monkeypatch.setattr("fastdraw.data.svhn.read_digit_struct", lambda _: pytest.fail("was read anew"))

    assert len(caches(user_cache)) == 2
    assert equal(load_svhn(root, "train"), first)
    assert equal(load_svhn(tmp_path / "other", "train"), other)


def test_no_cache_at_all_is_said_and_harms_nothing(root, user_cache, capsys):
    (root / ".fastdraw-svhn-train-right-1.npz").mkdir()
    user_cache.parent.mkdir()
    user_cache.write_text("no folder")

    assert load_svhn(root, "train").labels.tolist() == LABELS
    assert "can be written: SVHN is read anew next time" in capsys.readouterr().err


def test_the_photos_of_the_archive_may_have_a_palette(root):
    with Image.open(root / "train" / "2.png") as photo:
        plain = photo.copy()
    expected = load_svhn(root, "train").images[1]
    plain.quantize(256).save(root / "train" / "2.png")
    (root / ".fastdraw-svhn-train-right-1.npz").unlink()

    assert (load_svhn(root, "train").images[1].int() - expected.int()).abs().max() <= 2


@real
@pytest.mark.parametrize(("split", "lengths"), [("train", [272, 1110, 530, 88]), ("test", [207, 647, 133, 13])])
def test_real_photos_are_all_read(tmp_path, split, lengths):
    (tmp_path / split).symlink_to(Path(os.environ["FASTDRAW_SVHN"]) / split)
    svhn = load_svhn(tmp_path, split)

    assert svhn.lengths.bincount().tolist() == [0, *lengths]
    assert svhn.images.flatten(1).float().std(1).min() > 1
