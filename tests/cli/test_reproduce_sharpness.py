"""fastdraw reproduce sharpness: all of it at a tiny size, going on where it was stopped, and what it refuses."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageChops
from torch import Tensor

from fastdraw.cli import main
from fastdraw.cli.arguments import UsageError
from fastdraw.cli.reproduce import sharpness
from fastdraw.cli.reproduce.sharpness import PRESETS, STAGES
from fastdraw.evaluation.pages import GAP, MARGIN, to_tile
from fastdraw.evaluation.sharpness import gradient_energy, high_frequency_power, redraw_stages
from fastdraw.evaluation.sharpness_table import MODELS, Results, render_sharpness
from fastdraw.models import Vae
from fastdraw.training import Run, held_out_images, load_model, resolve, train
from fastdraw.training.checkpoint import read_checkpoint
from tests.cli.conftest import pictures
from tests.data.photos import write_faces
from tests.training.tiny import tiny

TINY = {
    "model.widths": (3, 3),
    "model.latent": 3,
    "model.refiner-width": 3,
    "model.blocks": 1,
    "steps": 3,
    "batch-size": 4,
    "log-every": 1,
    "evaluate-every": 2,
    "checkpoint-every": 2,
    "test-batches": 1,
    "device": "cpu",
    "threads": 1,
}
KINDS = [(0, "last"), (1, "last"), (1, "first"), (2, "first")]  # refiners, and what the likelihood is of, by model


def command(out: Path, *more: str) -> list[str]:
    settings = []
    for name, value in TINY.items():
        settings += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return ["reproduce", "sharpness", "--seeds", "0", "3", "--images", "12", "--out", str(out), *settings, *more]


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the command, run once."""
    out = tmp_path_factory.mktemp("sharpness") / "out"
    assert main(command(out)) == 0
    return out


def trained(folder: Path) -> Vae:
    model, _ = load_model(folder)
    assert isinstance(model, Vae)
    return model


def drawn(model: Vae, count: int, seed: int) -> Tensor:
    return model.expected(model.sample(None, None, model.noise(count, generator=torch.Generator().manual_seed(seed))))


def test_models_of_every_seed_are_trained(reproduced: Path) -> None:
    results = Results.read(reproduced / "results.json")
    assert [(run.model, run.seed, run.steps) for run in results.runs] == [(m, s, 3) for s in (0, 3) for m in MODELS]
    for seed in (0, 3):
        settings = [Run.open(reproduced / f"{model}-{seed}").settings() for model in MODELS]
        assert [(chosen.model.refiners, chosen.model.likelihood_of) for chosen in settings] == KINDS
        assert {chosen.seed for chosen in settings} == {seed}


def test_what_is_kept_was_measured_on_the_models(reproduced: Path) -> None:
    results = Results.read(reproduced / "results.json")
    images = held_out_images(Run.open(reproduced / "conv-vae-0").settings(), 1, 12).image
    assert results.real["gradient_energy"].value == pytest.approx(float(gradient_energy(images).mean()))
    assert results.real["gradient_energy"].samples == 12
    means: dict[str, list[float]] = {}
    for run in results.runs:
        model = trained(reproduced / f"{run.model}-{run.seed}")
        last = model.expected(redraw_stages(model, images)[-1])
        samples = drawn(model, 12, run.seed)
        assert run.reconstructed["gradient_energy"] == pytest.approx(float(gradient_energy(last).mean()))
        assert run.reconstructed["l1"] == pytest.approx(float((last - images).abs().mean()))
        assert run.prior["high_frequency_power"] == pytest.approx(float(high_frequency_power(samples).mean()), rel=1e-4)
        means.setdefault(run.model, []).append(run.reconstructed["gradient_energy"])
    for name, of_model in results.models.items():
        assert of_model.reconstructed.means["gradient_energy"].value == pytest.approx(sum(means[name]) / 2)
        assert len(of_model.stages) == 1 + dict(zip(MODELS, KINDS, strict=True))[name][0]


def test_page_is_rendered_from_what_is_kept(reproduced: Path) -> None:
    page = (reproduced / "sharpness.md").read_text()
    assert page == render_sharpness(Results.read(reproduced / "results.json"))
    assert page.startswith("# How sharp images of a VAE, a residual and a multi-stage VAE are, on MNIST\n")
    for name in ("results.json", "sharpness.md"):
        assert str(reproduced.parent) not in (reproduced / name).read_text()


def test_pictures_show_the_models_of_the_first_seed(reproduced: Path) -> None:
    assert pictures(reproduced) == {"curves.png", *sharpness.PICTURES}
    images = held_out_images(Run.open(reproduced / "conv-vae-0").settings(), 1, 12).image
    models = [trained(reproduced / f"{model}-0") for model in MODELS]
    stages = [redraw_stages(model, images) for model in models]
    first, last = stages[1]  # no loss keeps the residual VAE's first stage within [0, 1]
    stretched = torch.stack([(image - image.min()) / (image.max() - image.min()) for image in first]), last
    rows = {
        "rows.png": [images, *(of_model[-1] for of_model in stages)],
        "stages.png": [images, *(stage for of_model in (stretched, *stages[2:]) for stage in of_model)],
        "samples.png": [drawn(model, 12, 0) for model in models],
    }
    for name, shown in rows.items():
        with Image.open(reproduced / name) as page:
            assert page.height == 2 * MARGIN + len(shown) * (84 + GAP) - GAP
            for place, of_row in enumerate(shown):  # the tenth image, whose tile ends at the margin
                top, left = MARGIN + place * (84 + GAP), page.width - MARGIN - 84
                tile = page.convert("RGB").crop((left, top, left + 84, top + 84))
                apart = ImageChops.difference(tile, to_tile(of_row[9], 96)).getextrema()
                assert max(most for _, most in apart) <= 1, (name, place)  # rounded in batches of other sizes


def test_a_run_that_is_missing_is_trained_and_the_others_are_taken(
    reproduced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = Results.read(reproduced / "results.json")
    checkpoint = reproduced / "residual-vae-3" / "checkpoint.safetensors"
    before = read_checkpoint(checkpoint)
    checkpoint.unlink()
    assert main(command(reproduced)) == 0
    after = read_checkpoint(checkpoint)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    again = Results.read(reproduced / "results.json")
    assert (again.models, again.comparisons, again.real) == (results.models, results.comparisons, results.real)
    said = capsys.readouterr().out
    assert said.count("has taken all its 3 steps") == 7
    assert "residual-vae-3 has taken" not in said


def test_faces_that_are_too_small_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_faces(tmp_path / "faces" / "img_align_celeba", [1, 2, 182_638, 182_639])
    small = ["--data", "celeba", "--root", str(tmp_path / "faces"), "--model.height", "10", "--model.width", "10"]
    assert main(command(tmp_path / "out", *small)) == 1
    assert "images must be (B, C, H, W) of at least 11 x 11 pixels" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_faces_are_measured_and_their_pictures_left_with_the_user(tmp_path: Path) -> None:
    write_faces(tmp_path / "faces" / "img_align_celeba", [1, 2, 3, 4, 182_638, 182_639])
    small = ["--data", "celeba", "--size", "small", "--root", str(tmp_path / "faces")]
    size = ["--model.height", "16", "--model.width", "16", "--seeds", "1"]
    assert main(command(tmp_path / "out", *small, *size)) == 0
    results = Results.read(tmp_path / "out" / "results.json")
    assert (results.data, results.real["gradient_energy"].samples) == ("CelebA", 2)
    assert [(run.model, run.seed) for run in results.runs] == [(model, 1) for model in MODELS]
    assert "on CelebA\n" in (tmp_path / "out" / "sharpness.md").read_text()
    assert pictures(tmp_path / "out") == {"curves.png", *sharpness.PICTURES}


@pytest.mark.parametrize("size", sharpness.SIZES)
@pytest.mark.parametrize("data", sharpness.DATA)
def test_every_size_of_all_data_has_its_models(data: str, size: str) -> None:
    settings = [resolve(sharpness._preset(name, data, size), STAGES.get(m, {})) for m, name in PRESETS.items()]
    assert [(chosen.model.refiners, chosen.model.likelihood_of) for chosen in settings] == KINDS
    assert {chosen.data.source for chosen in settings} == {"digits" if data == "mnist" else "celeba"}
    paper = resolve(sharpness._preset("conv-vae", data, "paper"))
    assert (settings[0].steps < paper.steps) == (size == "small")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--data svhn", "argument --data: invalid choice: 'svhn'"),
        ("--size huge", "argument --size: invalid choice: 'huge'"),
        ("--seeds 0 1 0", "--seeds must differ, got 0 1 0"),
        ("--seed 1", "--seed cannot be given: the claim takes several seeds: give --seeds"),
        ("--data.source digits", "--data.source cannot be given: --data chooses it"),
        ("--images 0", "argument --images: must be at least 1, got 0"),
        ("--images 1", "--images must be at least 2, which an interval takes, got 1"),
        ("--model.refiners 3", "--model.refiners cannot be given: it tells the models apart"),
        ("--model.likelihood-of first", "--model.likelihood-of cannot be given: it tells the models apart"),
    ],
)
def test_arguments_that_make_no_table(tmp_path: Path, more: str, message: str) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=message):
        sharpness.main(["--out", str(out), *more.split()])
    assert not out.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--root", "nowhere"], "t10k-images-idx3-ubyte is missing"),
        (["--model.likelihood", "bernoulli"], "model.refiners need model.likelihood gaussian"),
        ([], "holds a run of other settings"),
    ],
    ids=["no-data", "bernoulli", "other-settings"],
)
def test_what_cannot_be_reproduced_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    if "other settings" in words:
        train(tiny(steps=2), tmp_path / "out" / "conv-vae-0")
    assert main(command(tmp_path / "out", *more)) == 1
    assert words in capsys.readouterr().err.strip().splitlines()[-1]
