"""fastdraw data: a sheet of every length that there is."""

from pathlib import Path

import pytest
from PIL import Image

from fastdraw.cli import main
from fastdraw.evaluation.pages import LINE_HEIGHT
from tests.cli.test_errors import fails
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
        ("--out OUT/sheet.png --split test", 1, "cannot write"),
    ],
)
def test_mistake_is_one_line(
    root: Path, tmp_path: Path, arguments: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments.replace("OUT", str(tmp_path / "OUT")).replace("ROOT", str(root)).split()
    fails(["data", *words], status, message, capsys)
    assert not (tmp_path / "OUT").exists()
