"""reconstruct, sample, interpolate, embed, traverse, evaluate and export on tiny runs: VAEs of all sizes, and DRAW."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastdraw.cli import main
from fastdraw.data import Batch, load_mnist_images
from fastdraw.data.folders import read_images
from fastdraw.evaluation import decode, embed, importance_weighted_bound, kl_by_dimension
from fastdraw.evaluation.pages import CAPTION_HEIGHT, GAP, MARGIN
from fastdraw.training import held_out_at, held_out_images, load_model, save_model
from tests.cli.conftest import pictures
from tests.cli.test_errors import fails
from tests.data.photos import write_photo
from tests.evaluation.test_pictures import pixels, tile
from tests.training.tiny import files, tiny_arguments

VAE = {
    "preset": "vae-mnist",
    "model.hidden": 8,
    "steps": 2,
    "batch-size": 8,
    "log-every": 1,
    "evaluate-every": 2,
    "checkpoint-every": 2,
    "test-batches": 1,
    "device": "cpu",
    "threads": 1,
}
STAGES = {
    "model.network": "conv",
    "model.widths": 4,
    "model.refiners": 2,
    "model.blocks": 1,
    "model.refiner-width": 4,
    "model.likelihood": "gaussian",
    "model.likelihood-of": "first",
    "refinement.weight": 3,
    "beta": 2,
}


def vae(latent: int, **changes: object) -> list[str]:
    values = VAE | {"model.latent": latent} | changes
    return [word for name, value in values.items() for word in (f"--{name}", str(value))]


RUNS = {
    "z1": vae(1),
    "z2": vae(2),
    "z8": vae(8),
    "stages": vae(4, **STAGES),
    "draw": tiny_arguments(steps=2),
}
SIZES = {"z1": (1, 1), "z2": (1, 2), "z8": (1, 8), "stages": (1, 4), "draw": (4, 4)}  # T and Z of a code
TOP = MARGIN + CAPTION_HEIGHT
every_run = pytest.mark.parametrize("name", RUNS)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of every kind; the VAEs' codes differ clearly from image to image."""
    folder = tmp_path_factory.mktemp("latent")
    for name, arguments in RUNS.items():
        assert main(["train", *arguments, "--out", str(folder / name)]) == 0
    return {name: folder / name for name in RUNS}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of five photos."""
    for number in range(5):
        write_photo(tmp_path / "own" / f"{number}.png", number, (40, 30))
    return tmp_path / "own"


def run_command(*words: str | Path) -> None:
    assert main([str(word) for word in words]) == 0


def told(name: str) -> list[str]:
    """What a model has to be told of a user's own images."""
    return ["--digits", "15"] if name == "draw" else []


def side(name: str) -> tuple[int, int]:
    """Height and width of an image on a page."""
    return (96, 192) if name == "draw" else (84, 84)


def tests_of(name: str, run: Path, count: int) -> Batch:
    return held_out_at(load_model(run)[1], 2 if name == "draw" else 1, range(count))


@every_run
def test_interpolate_shows_the_images_and_their_reconstructions_at_both_ends(
    runs: dict[str, Path], name: str, tmp_path: Path
) -> None:
    run_command("interpolate", runs[name], "--count", "2", "--steps", "3", "--out", tmp_path)
    assert pictures(tmp_path) == {"interpolation.png", "interpolation.gif"}

    batch, (height, width) = tests_of(name, runs[name], 4), side(name)
    model, _ = load_model(runs[name])
    made = decode(model, embed(model, batch), batch.labels, batch.lengths)
    page = pixels(tmp_path / "interpolation.png")
    assert page.shape[:2] == (TOP + 2 * (height + GAP) - GAP + MARGIN, 2 * MARGIN + 5 * (width + GAP) - GAP)
    for row in range(2):
        for column, image in (
            (0, batch.image[2 * row]),
            (1, made[2 * row]),
            (3, made[2 * row + 1]),
            (4, batch.image[2 * row + 1]),
        ):
            top, left = TOP + row * (height + GAP), MARGIN + column * (width + GAP)
            shown = page[top : top + height, left : left + width].astype(int)
            assert abs(shown - tile(image)).max() <= 1, (row, column)


def test_interpolate_between_test_images_by_number(runs: dict[str, Path], tmp_path: Path) -> None:
    run_command("interpolate", runs["z8"], "--between", "7", "3", "--steps", "2", "--out", tmp_path / "a")
    page, images = pixels(tmp_path / "a" / "interpolation.png"), load_mnist_images(None, "test").images
    assert page.shape[0] == TOP + 84 + MARGIN
    for column, number in ((0, 7), (3, 3)):
        left = MARGIN + column * (84 + GAP)
        np.testing.assert_array_equal(page[TOP : TOP + 84, left : left + 84], tile(images[number] / 255))
    run_command("interpolate", runs["z8"], "--between", "7", "3", "--steps", "2", "--line", "--out", tmp_path / "b")
    first, second = (files(tmp_path / name) for name in "ab")
    assert first["interpolation.png"] == second["interpolation.png"], "it has the ends alone"
    assert first["interpolation.gif"] != second["interpolation.gif"]


@every_run
def test_embed_writes_codes_that_decode_to_the_reconstructions(
    runs: dict[str, Path], name: str, tmp_path: Path
) -> None:
    run_command("embed", runs[name], "--count", "12", "--out", tmp_path)
    assert pictures(tmp_path) == {"embedding.png"}
    with np.load(tmp_path / "embedding.npz") as found:
        arrays = {key: torch.from_numpy(found[key]) for key in ("codes", "labels", "lengths", "places")}
        assert found["names"].tolist() == [str(number) for number in range(12)]

    steps, latent = SIZES[name]
    model, _ = load_model(runs[name])
    batch = tests_of(name, runs[name], 12)
    assert arrays["codes"].shape == (steps, 12, latent)
    assert arrays["codes"].dtype == torch.float32
    assert torch.equal(arrays["labels"], batch.labels)
    assert arrays["places"].shape == (12, 1 if steps * latent == 1 else 2)
    with torch.no_grad():
        output = model(*batch, torch.zeros(steps, 12, latent))
    made = decode(model, arrays["codes"], arrays["labels"], arrays["lengths"])
    torch.testing.assert_close(made, model.expected(output.canvas), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "images"), [("z1", 100), ("z2", 400)])
def test_traverse_shows_all_codes_of_one_or_two_numbers(
    runs: dict[str, Path], name: str, images: int, tmp_path: Path
) -> None:
    run_command("traverse", runs[name], "--out", tmp_path)
    assert pictures(tmp_path) == {"traversal.png"}
    page, (model, _) = pixels(tmp_path / "traversal.png"), load_model(runs[name])
    columns, scale = (10, 3) if name == "z1" else (20, 2)
    step = 28 * scale + (GAP if name == "z1" else 0)
    ends = torch.tensor([[-5.0], [5.0]]) if name == "z1" else torch.tensor([[5.0, -5.0], [-5.0, 5.0]])
    places = ((0, 0), (9, 9)) if name == "z1" else ((0, 19), (19, 0))
    for (row, column), image in zip(places, decode(model, ends[None]), strict=True):
        top, left = MARGIN + row * step, MARGIN + column * step
        shown = page[top : top + 28 * scale, left : left + 28 * scale].astype(int)
        assert abs(shown - tile(image, scale)).max() <= 1
    assert page.shape[0] == 2 * MARGIN + CAPTION_HEIGHT + (images // columns) * step - (GAP if name == "z1" else 0)


@pytest.mark.parametrize("name", ["z8", "stages", "draw"])
def test_traverse_shows_the_numbers_that_tell_most(runs: dict[str, Path], name: str, tmp_path: Path) -> None:
    run_command("traverse", runs[name], "--count", "3", "--steps", "5", "--out", tmp_path / "a")
    assert pictures(tmp_path / "a") == {"traversal.png"}
    page, (height, _) = pixels(tmp_path / "a" / "traversal.png"), side(name)
    assert page.shape[0] == TOP + 3 * (height + GAP) - GAP + CAPTION_HEIGHT + MARGIN
    model, settings = load_model(runs[name])
    batch = held_out_images(settings, settings.data.longest, 500)
    weights = embed(model, batch).var(1) if name == "draw" else kl_by_dimension(model, [batch])[None]
    best = [divmod(place, weights.shape[1]) for place in weights.flatten().argsort(descending=True)[:3].tolist()]
    named = [f"{step}:{number}" for step, number in best]
    run_command("traverse", runs[name], "--dimensions", *named, "--steps", "5", "--out", tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    run_command("traverse", runs[name], "--dimensions", *named[::-1], "--steps", "5", "--out", tmp_path / "c")
    assert files(tmp_path / "a") != files(tmp_path / "c")


@pytest.mark.parametrize("name", ["z2", "z8", "draw"])
def test_traverse_starts_from_any_code(runs: dict[str, Path], name: str, own: Path, tmp_path: Path) -> None:
    model, settings = load_model(runs[name])
    digits = torch.tensor([[1, 5]] if name == "draw" else [[0]])
    lengths = torch.tensor([digits.shape[1]])
    tests = tests_of(name, runs[name], 5)
    photo = read_images([own / "3.png"], (settings.model.height, settings.model.width), 1) / 255
    starts = {
        "first": ([], Batch(*(tensor[:1] for tensor in tests))),
        "other": (["--around", "4"], Batch(*(tensor[4:] for tensor in tests))),
        "zero": (["--zero", *told(name)], Batch(torch.zeros_like(tests.image[:1]), digits, lengths)),
        "own": (["--images", own / "3.png", *told(name)], Batch(photo, digits, lengths)),
    }
    height, width = side(name)
    for start, (arguments, (image, labels, length)) in starts.items():
        command = ["traverse", runs[name], "--dimensions", "0:1", "--steps", "4", "--reach", "0.5", *arguments]
        run_command(*command, "--out", tmp_path)
        code = model.embed(image, labels, length) * (start != "zero")
        code[0, 0, 1] = 0.5
        shown = pixels(tmp_path / "traversal.png")[TOP + 3 : TOP + height - 3, -MARGIN - width + 3 : -MARGIN - 3]
        expected = tile(decode(model, code, labels, length)[0])[3:-3, 3:-3]  # without a frame
        assert abs(shown.astype(int) - expected).max() <= 1, start


@every_run
def test_own_images_are_shown_in_the_size_of_the_model(
    runs: dict[str, Path], name: str, own: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_command("reconstruct", runs[name], "--images", own, "--count", "3", *told(name), "--out", out)
    run_command("reconstruct", runs[name], "--images", own, "--count", "3", *told(name), "--invert", "--out", out / "i")
    run_command("interpolate", runs[name], "--images", own / "4.png", own / "0.png", own, *told(name), "--out", out)
    run_command("embed", runs[name], "--images", own, own, own, "--count", "14", *told(name), "--out", out)
    assert pictures(out) == {"reconstructions.png", "interpolation.png", "interpolation.gif", "embedding.png"}
    with np.load(out / "embedding.npz") as found:
        assert found["names"].tolist() == 2 * [f"{n}.png" for n in range(5)] + [f"{n}.png" for n in range(4)]
        np.testing.assert_allclose(found["codes"][:, 0], found["codes"][:, 5], atol=1e-5)
        assert found["labels"].tolist() == 14 * [[1, 5] if name == "draw" else [0]]
    height, width = side(name)
    page, inverted = (pixels(folder / "reconstructions.png") for folder in (out, out / "i"))
    left = page.shape[1] - MARGIN - 3 * (width + GAP) + GAP
    rows = 4 if name == "stages" else 2
    assert page.shape[0] == 2 * MARGIN + rows * (height + GAP) - GAP
    for column in range(3):
        place = (
            slice(MARGIN, MARGIN + height),
            slice(left + column * (width + GAP), left + column * (width + GAP) + width),
        )
        with Image.open(own / f"{column}.png") as photo:
            grey = photo.convert("L").getpixel((20, 15))
        assert (page[place] == grey).all()
        assert (inverted[place] == 255 - grey).all()
    assert pixels(out / "interpolation.png").shape[0] == TOP + 3 * (height + GAP) - GAP + MARGIN, (
        "an odd one is left out"
    )


def test_a_number_for_each_own_image(runs: dict[str, Path], own: Path, tmp_path: Path) -> None:
    numbers = ["15", "26", "37", "48", "59"]
    run_command("embed", runs["draw"], "--images", own, own, "--digits", *numbers, *numbers, "--out", tmp_path)
    with np.load(tmp_path / "embedding.npz") as found:
        assert found["labels"].tolist() == 2 * [list(map(int, digits)) for digits in numbers]


def test_sample_and_reconstruct_show_every_stage(runs: dict[str, Path], tmp_path: Path) -> None:
    run_command("sample", runs["stages"], "--count", "3", "--out", tmp_path / "a")
    run_command("sample", runs["stages"], "--count", "3", "--out", tmp_path / "b")
    assert pictures(tmp_path / "a") == {"samples.png", "stages.png", "curves.png"}
    assert files(tmp_path / "a") == files(tmp_path / "b")
    page, samples = (pixels(tmp_path / "a" / name) for name in ("stages.png", "samples.png"))
    assert page.shape[0] == 2 * MARGIN + 3 * (84 + GAP) - GAP
    last = page[-MARGIN - 84 : -MARGIN, -MARGIN - 3 * (84 + GAP) + GAP : -MARGIN]
    np.testing.assert_array_equal(last, samples[MARGIN:-MARGIN, MARGIN:-MARGIN])
    model, _ = load_model(runs["stages"])
    noise = model.noise(3, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(last[:, :84], tile(decode(model, noise)[0]))


@pytest.mark.parametrize("name", ["z1", "z8", "stages"])
def test_evaluate_splits_the_bound_of_a_vae(
    runs: dict[str, Path], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    run_command("evaluate", runs[name], "--images", "30", "--importance", "4")
    report = json.loads((runs[name] / "evaluation.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert pictures(runs[name]) == {"kl_by_dimension.png"}
    (found,) = report["test"]["by_length"].values()
    assert len(found["kl_by_dimension"]) == SIZES[name][1]
    assert sum(found["kl_by_dimension"]) == pytest.approx(found["kl"], rel=1e-4)
    assert found["bound"] == found["nll"] + found["kl"] == pytest.approx(report["test"]["bound"])
    assert "kl_by_step" not in found

    model, settings = load_model(runs[name])
    batch = held_out_images(settings, 1, 30)
    codes = embed(model, batch)
    assert found["active_units"] == int((codes[0].var(0) > 0.01).sum())
    expected = found["nll"] + settings.beta * found["kl"]
    if name == "stages":
        noise = model.noise(30, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            _, *refined = model(*batch, noise).stages
        distance = sum((stage - batch.image).abs().sum((1, 2, 3)).mean().item() for stage in refined)
        assert found["refinement"] == pytest.approx(distance, rel=1e-4)
        expected += 3 * distance
    else:
        assert "refinement" not in found
    assert found["loss"] == pytest.approx(expected, rel=1e-4)
    weighted = importance_weighted_bound(model, [batch], 4)
    assert found["importance_weighted"] == pytest.approx({**weighted._asdict(), "samples": 4})


def test_evaluate_has_no_loss_where_a_network_compares_images(runs: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    model, settings = load_model(runs["stages"])
    refinement = settings.refinement.model_copy(update={"loss": "adversarial"})
    save_model(model, settings.model_copy(update={"refinement": refinement}), run)
    run_command("evaluate", run, "--images", "4")
    (found,) = json.loads((run / "evaluation.json").read_text())["test"]["by_length"].values()
    assert not {"loss", "refinement"} & set(found)
    assert {"nll", "kl", "kl_by_dimension"} < set(found)


@pytest.mark.parametrize("name", ["z8", "draw"])
def test_an_exported_model_is_the_runs(
    runs: dict[str, Path], name: str, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    run_command("export", runs[name], "--out", model)
    assert set(files(model)) == {"config.json", "model.safetensors"}
    digits = ["--digits", "15"] if name == "draw" else []
    fails(["resume", str(model)], 1, "model holds no settings.json", capsys)
    for folder, out in ((runs[name], tmp_path / "a"), (model, tmp_path / "b")):
        run_command("sample", folder, "--count", "1", *digits, "--out", out)
        run_command("reconstruct", folder, "--count", "2", "--out", out)
        run_command("traverse", folder, "--count", "1", "--out", out)
        run_command("embed", folder, "--images", own, own, *told(name), "--out", out)
    (tmp_path / "a" / "curves.png").unlink()  # of its training an exported model knows nothing
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_a_model_of_a_folder_of_colour_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, run, model, out = (tmp_path / name for name in ("photos", "run", "model", "out"))
    for number in range(24):
        write_photo(photos / ("test" if number < 12 else "train") / f"{number:02}.png", number)
    sizes = {"model.height": 9, "model.width": 12, "model.channels": 3, "data.channels": 3}
    changes = sizes | {"data.source": "folder", "root": photos, "model.likelihood": "gaussian"}
    run_command("train", *vae(4, **changes), "--out", run)
    for command in ("reconstruct", "interpolate", "embed", "traverse"):
        run_command(command, run, "--out", out)
    names = {"reconstructions.png", "interpolation.png", "interpolation.gif", "embedding.png", "traversal.png"}
    assert pictures(out) == names
    run_command("evaluate", run, "--images", "12")
    run_command("export", run, "--out", model)
    fails(["embed", str(model)], 1, "data.source folder needs a folder: .* as --root DIR", capsys)
    run_command("embed", model, "--root", photos, "--out", tmp_path / "again")
    first, again = ((folder / "embedding.npz").read_bytes() for folder in (out, tmp_path / "again"))
    assert first == again


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("sample z8 --digits 7", 1, "z8 is told nothing of what to draw: give neither --digits nor --caption"),
        ("figures z8", 1, "z8 is a run of a VAE, which does not draw step by step"),
        ("interpolate z8 --steps 1", 2, r"--steps: must lie in 2\.\.1000, got 1"),
        ("interpolate z8 --between 3", 2, "--between takes test images in pairs"),
        ("interpolate z8 --between 3 4 --images OWN", 2, "--between takes test images in pairs, and no --images"),
        ("interpolate z8 --between 3 5000", 1, "no test image 5000: there are 2000 of this kind, from 0"),
        ("interpolate z8 --between 3 -1", 2, r"--between: must lie in 0\.\.2147483647, got -1"),
        (
            "interpolate z8 --images OWN/0.png",
            2,
            "--images must hold at least two images to go from one to another, got",
        ),
        ("interpolate z8 --images OWN/0.png NONE", 1, "NONE is missing, or is no file"),
        ("interpolate z8 --images OWN/0.png TEXT", 1, "TEXT is no image in one of PNG, JPEG"),
        ("interpolate z8 --images EMPTY", 1, "EMPTY holds no image"),
        ("interpolate z8 --images OWN --digits 7", 1, "z8 is told nothing"),
        ("interpolate z8 --digits 7", 2, "--digits says something of --images, and there are none"),
        ("interpolate draw --images OWN", 1, "draw is told digits: give --digits"),
        ("interpolate draw --images OWN --caption digit", 1, "draw is told digits: give --digits"),
        ("interpolate draw --images OWN --digits 1 25 3 4 5", 2, "--digits must be numbers of one length"),
        ("embed draw --images OWN --digits 1 2", 2, "one number for all 5 images or one for each, got 2"),
        ("embed z8 --count 9", 1, "t-SNE takes at least 10 images, got 9"),
        ("embed z8 --images OWN", 1, "t-SNE takes at least 10 images, got 5"),
        ("embed z8 --count 0", 2, r"--count: must lie in 1\.\.100000, got 0"),
        ("embed z8 --invert", 2, "--invert says something of --images, and there are none"),
        ("reconstruct z8 --caption digit", 2, "--caption says something of --images, and there are none"),
        ("reconstruct z8 --images", 2, "--images: expected at least one argument"),
        ("reconstruct z8 --images TEXT", 1, "TEXT is no image in one of PNG, JPEG"),
        ("traverse z8 --dimensions 8", 1, r"no number 8 at step 0 of a code: it has 8 at each of 1 step\(s\)"),
        ("traverse z8 --dimensions 1:0", 1, "no number 0 at step 1 of a code"),
        ("traverse draw --dimensions 4:0", 1, r"no number 0 at step 4 of a code: it has 4 at each of 4 step\(s\)"),
        ("traverse z8 --dimensions -1", 2, "--dimensions"),
        ("traverse z8 --dimensions 1:2:3", 2, "--dimensions: must be a number from 0 such as 3, or STEP:NUMBER"),
        ("traverse z8 --dimensions ²", 2, "--dimensions: must be a number from 0 such as 3"),
        ("traverse z8 --reach 0", 2, "--reach: must lie above 0 and below 1e6, got 0"),
        ("traverse z8 --reach nan", 2, "--reach: must lie above 0 and below 1e6, got nan"),
        ("traverse z8 --around 2000", 1, "no test image 2000"),
        ("traverse z8 --images OWN", 2, "--images must be one, whose code is changed, got 5"),
        ("traverse z8 --digits 7", 2, "--digits says something of --images"),
        ("traverse z8 --zero --images OWN/0.png", 2, "--zero takes the place of an image: leave out --images"),
        ("traverse z8 --zero --around 3", 2, "--zero takes the place of an image: leave out --around"),
        ("traverse draw --zero", 1, "draw is told digits: give --digits"),
        ("traverse draw --zero --digits 1 2", 2, "--digits must be one number for the code 0, got 2"),
        ("export z8 --out z2", 1, "z2 holds a run, whose model is there already: give another --out"),
        ("export z8 --out TEXT/model", 1, "cannot make the folder .*TEXT"),
        ("export z8", 2, "required: --out"),
        ("export NONE --out OUT", 1, "NONE is no folder"),
        ("embed z8 --count 10 --out TEXT", 1, "TEXT: File exists"),
    ],
    ids=lambda value: value.replace(" ", "_") if isinstance(value, str) else str(value),
)
def test_mistake_is_one_line_and_harms_nothing(
    runs: dict[str, Path],
    own: Path,
    tmp_path: Path,
    arguments: str,
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "TEXT").write_text("no image")
    places = {name: str(path) for name, path in runs.items()} | {"OWN": str(own), "OWN/0.png": str(own / "0.png")}
    places |= {name: str(tmp_path / name) for name in ("EMPTY", "TEXT", "TEXT/model", "NONE", "OUT")}
    before = {name: files(run) for name, run in runs.items()}, files(tmp_path)
    fails([places.get(word, word) for word in arguments.split()], status, message, capsys)
    assert before == ({name: files(run) for name, run in runs.items()}, files(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("sample z8 --count 2000000000", 1, "not enough memory"),
        ("interpolate z8 --steps 99999999999999999999", 2, r"--steps: must lie in 2\.\.1000"),
        ("interpolate z8 --count 2000000000", 2, r"--count: must lie in 1\.\.1000"),
        ("interpolate z8 --between 0 2000000000", 1, "no test image 2000000000: there are 2000"),
        ("reconstruct z8 --count 2000000000", 2, r"--count: must lie in 1\.\.10000"),
        ("interpolate z8 --between 0 99999999999999999999", 2, r"--between: must lie in 0"),
        ("embed z8 --count 2000000000", 2, r"--count: must lie in 1\.\.100000"),
        ("traverse z8 --dimensions 99999999999999999999", 1, "no number 99999999999999999999 at step 0"),
        ("traverse z8 --reach 1e308", 2, "--reach: must lie above 0 and below 1e6"),
        ("traverse z8 --steps 2000000000", 2, r"--steps: must lie in 2\.\.1000"),
        ("reconstruct z8 --images \udcff", 2, "is no text in the encoding"),
        ("export z8 --out=", 2, "--out: must name a folder"),
        ("embed z8 --images=", 2, "--images: must name a file or a folder, got an empty text"),
    ],
)
def test_numbers_and_texts_out_of_all_bounds(
    runs: dict[str, Path], arguments: str, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(runs["z8"])
    fails([str(runs.get(word, word)) for word in arguments.split()], status, message, capsys)
    assert files(runs["z8"]) == before
