"""fastdraw data: a sheet of every length that there is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastdraw.cli import main
from fastdraw.evaluation.pages import LINE_HEIGHT
from tests.cli.test_errors import fails
from tests.data.photos import pattern, shade, write_faces, write_photo
from tests.data.svhn import write_svhn

TILE, GAP, MARGIN, CAPTION = (192, 96), 8, 16, 24
NUMBERS = [[(digit, 15 * place, 10, 12, 30) for place in range(length)] for length in (1, 2, 4) for digit in (3, 7)]


def sheet_size(columns: int, rows: int) -> tuple[int, int]:
    """The size of a page with so many captioned tiles."""
    return 2 * MARGIN + columns * (TILE[0] + GAP) - GAP, 2 * MARGIN + rows * (TILE[1] + GAP + CAPTION) - GAP


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_svhn(tmp_path / "svhn", "train", NUMBERS)
    return tmp_path / "svhn"


def test_mnist_is_shown_in_every_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sheet.png"
    assert main(["data", "--out", str(out), "--split", "test", "--count", "10"]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    with Image.open(out) as sheet:
        assert sheet.size == sheet_size(columns=10, rows=4)


@pytest.mark.parametrize(
    ("source", "side", "scale", "head"), [("captions", 60, 2, CAPTION + 3 * LINE_HEIGHT), ("binarised", 28, 3, CAPTION)]
)
def test_mnist_is_shown_with_captions_and_binarised(
    tmp_path: Path, source: str, side: int, scale: int, head: int
) -> None:
    out = tmp_path / "sheet.png"
    assert main(["data", "--source", source, "--split", "test", "--count", "10", "--out", str(out)]) == 0
    with Image.open(out) as sheet:
        assert sheet.width == 2 * MARGIN + 10 * (side * scale + GAP) - GAP
        assert 2 * MARGIN + CAPTION + side * scale <= sheet.height <= 2 * MARGIN + head + side * scale
        tile = sheet.crop((MARGIN, sheet.height - MARGIN - side * scale, MARGIN + side * scale, sheet.height - MARGIN))
    greys = set(tile.convert("L").tobytes())
    assert (greys == {0, 255}) == (source == "binarised")
    assert {0} < greys


@pytest.mark.parametrize("align", ["right", "slots", "goodfellow"])
def test_svhn_is_shown_in_the_lengths_that_there_are(root: Path, tmp_path: Path, align: str) -> None:
    out = tmp_path / "sheet.png"
    command = ["data", "--source", "svhn", "--root", str(root), "--align", align, "--out", str(out), "--count", "1"]
    assert main(command) == 0
    with Image.open(out) as sheet:
        assert sheet.size[1] == sheet_size(columns=3, rows=1)[1]


def test_svhn_is_shown_in_colour_where_asked(root: Path, tmp_path: Path) -> None:
    for channels in ("1", "3"):
        command = ["data", "--source", "svhn", "--root", str(root), "--channels", channels, "--out"]
        assert main([*command, str(tmp_path / f"{channels}.png")]) == 0
    greys = []
    for channels in ("1", "3"):
        with Image.open(tmp_path / f"{channels}.png") as sheet:
            greys.append(all(red == green == blue for _, (red, green, blue) in sheet.convert("RGB").getcolors(2**24)))
    assert greys == [True, False]


def tiles(path: Path, count: int, side: int) -> list[np.ndarray]:
    """The tiles (side, side, 3) of a sheet that has one row of them and no captions."""
    with Image.open(path) as sheet:
        assert sheet.size == (2 * MARGIN + count * (side + GAP) - GAP, 2 * MARGIN + side)
        page = np.asarray(sheet.convert("RGB")).astype(int)
    lefts = [MARGIN + place * (side + GAP) for place in range(count)]
    return [page[MARGIN : MARGIN + side, left : left + side] for left in lefts]


def test_single_digits_are_shown_each_once_under_their_labels(tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert main(["data", "--source", "digits", "--split", "test", "--count", "10", "--out", str(out)]) == 0
    with Image.open(out) as sheet:
        assert sheet.size == (2 * MARGIN + 10 * (84 + GAP) - GAP, 2 * MARGIN + CAPTION + 84)


def test_a_folder_is_shown_in_the_size_and_the_colours_that_are_asked_for(tmp_path: Path) -> None:
    for number in range(4):
        write_photo(tmp_path / "photos" / f"{number}.png", number)
    command = ["data", "--source", "folder", "--root", str(tmp_path / "photos"), "--size", "96", "96", "--out"]
    assert main([*command, str(tmp_path / "colour.png"), "--channels", "3"]) == 0
    colours = {tuple(tile[0, 0]) for tile in tiles(tmp_path / "colour.png", 3, 96)}
    assert colours == {shade(number) for number in (1, 2, 3)}
    assert main([*command, str(tmp_path / "grey.png"), "--split", "test"]) == 0
    (tile,) = tiles(tmp_path / "grey.png", 1, 96)
    assert len(np.unique(tile)) == 1


def test_faces_are_shown_as_they_are_cropped(tmp_path: Path) -> None:
    write_faces(tmp_path / "img_align_celeba", [1, 162_771])
    command = ["data", "--source", "celeba", "--root", str(tmp_path), "--channels", "3", "--out"]
    for split, number in (("train", 1), ("valid", 162_771)):
        assert main([*command, str(tmp_path / "sheet.png"), "--split", split]) == 0
        (tile,) = tiles(tmp_path / "sheet.png", 1, 128)
        assert abs(tile - pattern(218, 178, number)[45:173, 25:153]).mean() < 3


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("", 2, "required: --out"),
        ("--out OUT --source cifar", 2, "invalid choice: 'cifar'"),
        ("--out OUT --source svhn", 2, "--source svhn needs --root DIR"),
        ("--out OUT --source svhn --root ROOT --split test", 1, "digitStruct.mat is missing"),
        ("--out OUT --source svhn --root ROOT --align left", 2, "invalid choice: 'left'"),
        ("--out OUT --split extra", 1, "unknown split 'extra'"),
        ("--out OUT --download", 1, "--root DIR"),
        ("--out OUT --source celeba", 2, "--source celeba needs --root DIR, a folder that holds CelebA's img_align"),
        ("--out OUT --source celeba --root ROOT", 1, "img_align_celeba is missing, and so is .* or add --download"),
        ("--out OUT --source folder", 2, "--source folder needs --root DIR, a folder that holds images"),
        ("--out OUT --source folder --root OUT", 1, "OUT is no folder: give a folder of images"),
        ("--out OUT --source folder --root ROOT --download", 2, "--download cannot fetch a folder of images"),
        ("--out OUT --source folder --root ROOT --size 0 1", 2, "must be at least 1, got 0"),
        ("--out OUT --source folder --root ROOT --split valid", 1, "unknown split 'valid'"),
        ("--out OUT/sheet.png --split test", 1, "cannot write"),
    ],
)
def test_mistake_is_one_line(
    root: Path, tmp_path: Path, arguments: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments.replace("OUT", str(tmp_path / "OUT")).replace("ROOT", str(root)).split()
    fails(["data", *words], status, message, capsys)
    assert not (tmp_path / "OUT").exists()
