"""The commands on a user's own images: a VAE and a DRAW model of a folder of photos in colour."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fastdraw.cli import main
from fastdraw.training import Run
from tests.cli.conftest import pictures
from tests.cli.test_errors import fails
from tests.data.photos import pattern
from tests.training.tiny import files, tiny_arguments

COLOUR: dict[str, Any] = {
    "data.source": "folder",
    "data.channels": 3,
    "model.channels": 3,
    "model.height": 32,
    "model.width": 32,
}
FEW: dict[str, Any] = {"steps": 3, "batch-size": 4, "test-batches": 1, "device": "cpu"}
KINDS: dict[str, list[str]] = {
    "vae": [
        "--preset",
        "vae-mnist",
        *(word for name, value in (FEW | COLOUR).items() for word in (f"--{name}", str(value))),
    ],
    "draw": tiny_arguments(**{"steps": 3, **COLOUR, "model.labels": "none", "model.steps_per_image": 3}),
}


def write_photos(folder: Path) -> Path:
    folder.mkdir()
    for number in range(12):
        Image.fromarray(pattern(40, 50 + number, number)).save(folder / f"{number:02}.jpg")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of either kind."""
    folder = tmp_path_factory.mktemp("own")
    photos = write_photos(folder / "photos")
    for kind, arguments in KINDS.items():
        assert main(["train", *arguments, "--root", str(photos), "--out", str(folder / kind)]) == 0
    return {kind: folder / kind for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_own_images_is_trained(runs: dict[str, Path], kind: str) -> None:
    rows = Run.open(runs[kind]).metrics()
    assert {row["split"] for row in rows} == {"train", "test"}
    assert rows[-1]["step"] == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_once_its_images_are_where_it_looks_for_them(
    runs: dict[str, Path], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs[kind], tmp_path / "run")
    settings = Run.open(tmp_path / "run").settings()
    moved = settings.at(tmp_path / "photos")
    Run.open(tmp_path / "run").save_settings(moved)
    before = files(tmp_path)
    fails(["resume", str(tmp_path / "run"), "--steps", "4"], 1, "photos is no folder: give a folder of images", capsys)
    assert files(tmp_path) == before
    write_photos(tmp_path / "photos")
    assert main(["resume", str(tmp_path / "run"), "--steps", "4"]) == 0
    assert Run.open(tmp_path / "run").metrics()[-1]["step"] == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_own_images_is_measured_and_shown_also_on_others(
    runs: dict[str, Path], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = write_photos(tmp_path / "others")
    (others / "10.jpg").unlink()  # so that 00.jpg is the only one to test on
    (others / "11.jpg").unlink()
    for root, images in ((None, 2), (others, 1)):
        place = [] if root is None else ["--root", str(root)]
        out = tmp_path / f"{images}"
        assert main(["reconstruct", str(runs[kind]), *place, "--count", "2", "--out", str(out)]) == 0
        assert pictures(out) == {"reconstructions.png"}
        interpolate = ["interpolate", str(runs[kind]), *place, "--out", str(tmp_path / "ways")]
        if images > 1:  # as many rows as there are pairs, up to --count
            assert main(interpolate) == 0
        else:
            fails(
                interpolate, 2, "the test split must hold at least two images to go from one to another, got 1", capsys
            )
        assert main(["evaluate", str(runs[kind]), *place, "--images", "2"]) == 0
        report = json.loads((runs[kind] / "evaluation.json").read_text())
        assert list(report["test"]["by_length"]) == ["1"]
        # One image has no variance by which a unit could be active.
        assert ("active_units" in report["test"]["by_length"]["1"]) == (kind == "vae" and images > 1)
        assert report["settings"]["data"]["root"] == str(root or runs[kind].parent / "photos")


@pytest.mark.parametrize("kind", KINDS)
def test_no_test_image_is_shown_twice(
    runs: dict[str, Path], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in ("2", "16"):
        assert main(["reconstruct", str(runs[kind]), "--count", count, "--out", str(tmp_path / count)]) == 0
    assert main(["interpolate", str(runs[kind]), "--between", "0", "1", "--out", str(tmp_path / "2")]) == 0
    assert main(["interpolate", str(runs[kind]), "--out", str(tmp_path / "16")]) == 0
    assert files(tmp_path / "2") == files(tmp_path / "16")

    alone = write_photos(tmp_path / "alone")
    for number in range(2, 12):
        (alone / f"{number:02}.jpg").unlink()
    message = "the test split must hold at least two images to go from one to another, got 1"
    fails(["interpolate", str(runs[kind]), "--root", str(alone)], 2, message, capsys)
