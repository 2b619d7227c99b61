"""digitStruct.mat: names, digits and boxes as they were written; a damaged file ends as one line."""

import csv
import os
import random
from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np
import pytest

from fastdraw.data.digit_struct import read_digit_struct
from fastdraw.errors import FastdrawError
from tests.data.svhn import write_digit_struct

ENTRIES = [
    ("1.png", [(10, 3, 4, 5, 6)]),
    ("2.png", [(1, 30, -2, 10, 20), (9, 20, 1.5, 9, 21)]),
    ("17.png", [(2, 1, 2, 3, 4), (10, 4, 2, 3, 4), (10, 8, 2, 3, 4)]),
]

real = pytest.mark.skipif("FASTDRAW_SVHN" not in os.environ, reason="FASTDRAW_SVHN names no folder of SVHN")


@pytest.fixture
def path(tmp_path):
    write_digit_struct(tmp_path / "digitStruct.mat", ENTRIES)
    return tmp_path / "digitStruct.mat"


def rows(numbers):
    """Numbers as tuples of a name and rows of digit, left, top, width, height."""
    return [
        (n.name, [(digit, *box) for digit, box in zip(n.digits.tolist(), n.boxes.tolist(), strict=True)])
        for n in numbers
    ]


def test_entries_come_as_they_were_written(path):
    numbers = read_digit_struct(path)

    assert rows(numbers) == [(name, [(label % 10, *box) for label, *box in boxes]) for name, boxes in ENTRIES]
    assert {(n.digits.dtype, n.boxes.dtype) for n in numbers} == {(np.dtype(np.int64), np.dtype(np.float64))}


def test_one_number_may_be_a_reference_too(path):
    with h5py.File(path, "r+") as file:
        for field in ("label", "left", "top", "width", "height"):
            group = file[file["digitStruct/bbox"][0, 0]]
            reference = file["#refs#"].create_dataset(f"one_{field}", data=group[field][()]).ref
            del group[field]
            group.create_dataset(field, (1, 1), h5py.ref_dtype)[0, 0] = reference

    assert rows(read_digit_struct(path))[0] == ("1.png", [(0, 3, 4, 5, 6)])


def replace(key, value):
    """A change of one field of the second entry."""

    def change(file):
        group = file[file["digitStruct/bbox"][1, 0]]
        del group[key]
        group.create_dataset(key, data=value)

    return change


def rename(characters):
    def change(file):
        name = file["#refs#"].create_dataset("other", data=np.array([[ord(c)] for c in characters], np.uint16))
        file["digitStruct/name"][1, 0] = name.ref

    return change


def delete(key):
    def change(file):
        del file[key]

    return change


def shorten(key):
    def change(file):
        data = file[key][:-1]
        del file[key]
        file.create_dataset(key, data=data, dtype=h5py.ref_dtype)

    return change


def relayout(key, data, **options):
    def change(file):
        del file[key]
        file.create_dataset(key, data=data, **options)

    return change


def dangle(file):
    del file[file["digitStruct/bbox"][1, 0]]["left"]


def point_at_many(file):
    many = file["#refs#"].create_dataset("many", data=np.ones((2, 1)))
    file[file["digitStruct/bbox"][1, 0]]["label"][0, 0] = many.ref


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (delete("digitStruct"), "no references at /digitStruct/name: is it the digitStruct.mat of SVHN format 1"),
        (delete("digitStruct/bbox"), "no references at /digitStruct/bbox"),
        (relayout("digitStruct/name", np.ones((3, 1))), "no references at /digitStruct/name"),
        (relayout("digitStruct/name", None, shape=(3,), dtype=h5py.ref_dtype), r"\(N, 1\), got \(3,\)"),
        (relayout("digitStruct/name", None, shape=(0, 1), dtype=h5py.ref_dtype), "names 0 images in"),
        (relayout("digitStruct/name", None, shape=(10**9, 1), dtype=h5py.ref_dtype), "names 1000000000 images in"),
        (shorten("digitStruct/bbox"), "holds 3 names but 2 entries of boxes"),
        (rename("../2.png"), r"entry 2 names the image '../2.png': expected a plain name"),
        (rename("digits"), "entry 2 names the image 'digits'"),
        (rename(300 * "1"), r"entry 2 has a name of shape \(300, 1\)"),
        (dangle, "not a whole digitStruct.mat .*left"),
        (point_at_many, "not a whole digitStruct.mat"),
        (replace("label", [[11.0]]), "2.png has fields of unequal lengths .1 of label, 2 of left"),
        (replace("label", np.ones((0, 1))), r"2.png has a label of shape \(0, 1\)"),
        (replace("label", np.ones((300, 1))), r"2.png has a label of shape \(300, 1\)"),
        (replace("width", np.ones((1, 2))), r"2.png has a width of shape \(1, 2\)"),
    ],
)
def test_another_layout_is_named(path, change, message):
    with h5py.File(path, "r+") as file:
        change(file)

    with pytest.raises(FastdrawError, match=message) as caught:
        read_digit_struct(path)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((11, 1, 1, 2, 2), "5.png has the label 11: expected 1 to 10, where 10 is the digit 0"),
        ((0, 1, 1, 2, 2), "5.png has the label 0: expected"),
        ((1.5, 1, 1, 2, 2), "5.png has the label 1.5: expected"),
        ((1, np.nan, 1, 2, 2), "5.png has a label or a box that is not finite"),
        ((1, 1, 1, 2, np.inf), "5.png has a label or a box that is not finite"),
    ],
)
def test_a_value_out_of_range_is_named(tmp_path, row, message):
    write_digit_struct(tmp_path / "digitStruct.mat", [("5.png", [(1, 1, 1, 2, 2), row])])

    with pytest.raises(FastdrawError, match=message):
        read_digit_struct(tmp_path / "digitStruct.mat")


def test_a_missing_file_and_another_file_are_named(tmp_path):
    with pytest.raises(FastdrawError, match=r"digitStruct.mat is missing"):
        read_digit_struct(tmp_path / "digitStruct.mat")
    (tmp_path / "digitStruct.mat").write_bytes(b"<html>not found</html>")
    with pytest.raises(FastdrawError, match=r"not a whole digitStruct.mat .*signature not found"):
        read_digit_struct(tmp_path / "digitStruct.mat")


def test_a_truncated_file_is_refused_wherever_it_ends(path):
    whole = path.read_bytes()
    for end in range(0, len(whole), len(whole) // 60):
        path.write_bytes(whole[:end])
        with pytest.raises(FastdrawError, match=r"not a whole digitStruct.mat"):
            read_digit_struct(path)


def test_flipped_bytes_end_as_one_line_or_as_numbers(path):
    whole, rng = path.read_bytes(), random.Random(0)
    refused = []
    for _ in range(200):
        broken = bytearray(whole)
        for _ in range(rng.choice((1, 30, 300))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        try:
            numbers = read_digit_struct(path)
        except FastdrawError as error:
            refused.append(str(error))
            continue
        for number in numbers:
            assert len(number.digits) == len(number.boxes) > 0
            assert set(number.digits) <= set(range(10))
            assert np.isfinite(number.boxes).all()
            assert Path(number.name).name == number.name
    assert 50 < len(refused) < 200
    assert not any("\n" in message for message in refused)


@real
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("file", ["{}/digitStruct.mat", "matlab_sample/{}_digitStruct.mat"])
def test_real_files_agree_with_the_label_tables(split, file):
    root = Path(os.environ["FASTDRAW_SVHN"])
    table = defaultdict(list)
    with open(root / "labels" / f"{split}_digitStruct.csv", newline="") as lines:
        for row in csv.DictReader(lines, delimiter=";"):
            label, *box = (int(row[field]) for field in ("label", "left", "top", "width", "height"))
            table[row["name"]].append((label % 10, *box))

    numbers = read_digit_struct(root / file.format(split))

    assert rows(numbers) == [(f"{index}.png", table[f"{index}.png"]) for index in range(1, len(numbers) + 1)]
    assert len(numbers) == {"train": (2000, 39), "test": (1000, 40)}[split][file.startswith("matlab")]
